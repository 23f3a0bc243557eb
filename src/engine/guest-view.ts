import type { GuestView } from '../wire/guest.ts';
import type { GuestPaths } from './guest-host.ts';
import type { GuestRecord } from './guest-record.ts';

/** A guest as its users see it. */
export function viewGuest(
  record: GuestRecord,
  facts: {
    readonly accelerator: GuestView['accelerator'];
    readonly paths: Pick<GuestPaths, 'disk' | 'consoleLog'>;
    readonly isAgentOpen: boolean;
  },
): GuestView {
  const { network } = record;
  return {
    kind: 'vm',
    id: record.id,
    name: record.name,
    image: record.image,
    state: record.state,
    reason: record.reason,
    createdAtMs: record.createdAtMs,
    accelerator: facts.accelerator,
    machineType: record.machineType,
    firmware: record.firmware,
    vcpus: record.vcpus,
    memoryBytes: record.memoryBytes,
    maxVcpus: record.maxVcpus,
    maxMemoryBytes: record.maxMemoryBytes,
    disk: { path: facts.paths.disk, virtualBytes: record.diskBytes },
    autostart: record.autostart ?? false,
    isAgentOpen: facts.isAgentOpen,
    consoleLogPath: facts.paths.consoleLog,
    ...(record.startedAtMs === undefined ? {} : { startedAtMs: record.startedAtMs }),
    ...(record.process === undefined ? {} : { pid: record.process.pid }),
    ...(record.cloudInit === undefined ? {} : { cloudInit: record.cloudInit }),
    ...(network === undefined
      ? {}
      : { network: { name: network.name, ipv4Address: network.ipv4Address, macAddress: network.macAddress } }),
  };
}
