import { EngineError } from './errors.ts';

/** A port of a container that is to be reached from the host. */
export interface PortRequest {
  readonly protocol: 'tcp';
  readonly containerPort: number;
  /** Empty: every address of the host. */
  readonly hostIp: string;
  /** 0: any free one. */
  readonly hostPort: number;
}

interface BindingInput {
  readonly HostIp?: string | null | undefined;
  readonly HostPort?: string | null | undefined;
}

/** `80/tcp` → number and protocol. */
export function parseContainerPort(text: string): { port: number; protocol: string } {
  const match = /^(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text);
  const port = Number(match?.[1]);
  if (!match || port < 1 || port > 65_535)
    throw new EngineError('invalid-argument', `invalid port specification: "${text}"`);
  return { port, protocol: match[2] ?? 'tcp' };
}

/** Docker's PortBindings and PublishAllPorts as the list of ports to hold. Host port ranges take one free port each. */
export function planPorts(
  bindings: Readonly<Record<string, readonly BindingInput[] | null | undefined>>,
  exposed: readonly string[],
  publishAll: boolean,
): PortRequest[] {
  const asked = Object.entries(bindings).flatMap(([key, hosts]) =>
    (hosts ?? []).map((host) => planPort(key, host.HostIp ?? '', host.HostPort ?? '')),
  );
  const published = new Set(Object.keys(bindings));
  const rest = publishAll ? exposed.filter((key) => !published.has(key)).map((key) => planPort(key, '', '')) : [];
  return [...asked, ...rest];
}

function planPort(key: string, hostIp: string, hostPort: string): PortRequest {
  const { port, protocol } = parseContainerPort(key);
  if (protocol !== 'tcp') {
    throw new EngineError(
      'unsupported',
      `publishing ${key}: only TCP ports can be published by this version of Bulkhead`,
    );
  }
  const number = hostPort === '' ? 0 : Number(hostPort);
  if (!Number.isInteger(number) || number < 0 || number > 65_535) {
    throw new EngineError('invalid-argument', `invalid hostPort: ${hostPort}: write one port number, 1 to 65535`);
  }
  return { protocol: 'tcp', containerPort: port, hostIp: hostIp === '0.0.0.0' ? '0.0.0.0' : hostIp, hostPort: number };
}
