/**
 * The Bulkhead client: a typed way to a Bulkhead daemon (or any daemon that speaks the Docker Engine API 1.24 to 1.51).
 *
 * ```ts
 * import { connect, demultiplex } from 'bulkhead';
 *
 * using client = connect({ host: 'unix:///run/bulkhead/bulkhead.sock' });
 * const { Id } = await client.containers.create({ Image: 'busybox', Cmd: ['uname', '-r'], HostConfig: { Isolation: 'vm' } });
 * const output = await client.containers.attach(Id, { stdout: true, stderr: true });
 * const exit = await client.containers.wait(Id, { condition: 'next-exit' });
 * await client.containers.start(Id);
 * await demultiplex(output, { stdout: process.stdout, stderr: process.stderr });
 * console.log('exit code', (await exit.result).StatusCode);
 * await client.containers.remove(Id);
 * ```
 *
 * Every method takes `{ signal }`. The daemon's refusals are thrown as `ApiError` (`status`, `message`); an unreachable daemon or an answer that
 * makes no sense as `EngineError` (`code` is `unavailable` or `internal`). Streams are Node streams and hold back their source when full.
 */
export { ApiError } from './api-error.ts';
export { BulkheadClient, connect, type ConnectOptions } from './bulkhead-client.ts';
export { NEWEST_API_VERSION } from './newest-api-version.ts';
export type { CallOptions, Filters } from './call-options.ts';
export type { ContainerClient, AttachRequest, LogsRequest, StopRequest } from './container-client.ts';
export type { ExecClient, ExecStartRequest } from './exec-client.ts';
export type { GuestClient } from './guest-client.ts';
export type { ImageClient, ProgressMessages } from './image-client.ts';
export type { NetworkClient, NetworkCreateRequest } from './network-client.ts';
export type { SystemClient } from './system-client.ts';
export { demultiplex, relay, type FrameSinks } from './frames.ts';
export { DEFAULT_HOST, formatHostAddress, parseHostAddress, type HostAddress } from './host-address.ts';
export type { RegistryAuth } from './registry-auth.ts';
export type { TlsOptions } from './transport.ts';
export type * from './answers.ts';
export type { GuestLaunchRequest, GuestView, GuestImageView } from '../wire/guest.ts';
export { EngineError } from '../core/errors.ts';
