import { UsageError } from '../flags/parse-flags.ts';

export type PortBinding = {
  readonly HostIp: string;
  readonly HostPort: string;
};

export interface PortPlan {
  /** `80/tcp` → `{}`, the API's notation of a set. */
  readonly exposed: Record<string, Record<string, never>>;
  readonly bindings: Record<string, PortBinding[]>;
}

/**
 * Reads `-p` (`80`, `8080:80`, `127.0.0.1:8080:80/udp`, `[::1]::80`, ranges `8000-8010:80-90`) and `--expose` (`80`, `80-90/udp`).
 * `8000-8010:80` asks for any one host port of a range; the daemon chooses.
 */
export function planPorts(published: readonly string[], exposedSpecs: readonly string[]): PortPlan {
  const exposed: Record<string, Record<string, never>> = {};
  const bindings: Record<string, PortBinding[]> = {};
  for (const spec of published.flatMap(expandLongForm)) {
    for (const { port, binding } of parsePublished(spec)) {
      exposed[port] = {};
      (bindings[port] ??= []).push(binding);
    }
  }
  for (const spec of exposedSpecs) {
    const [range = '', protocol = 'tcp'] = spec.split('/');
    const { first, last } = parseRange(range, `invalid range format for --expose: ${spec}`);
    for (let port = first; port <= last; port += 1) exposed[`${port}/${checkProtocol(protocol, spec)}`] = {};
  }
  return { exposed, bindings };
}

function parsePublished(spec: string): { port: string; binding: PortBinding }[] {
  const { hostIp, hostPart, containerPart, protocol } = splitPublished(spec);
  const container = parseRange(containerPart, `invalid containerPort: ${containerPart}`);
  const sized = container.last - container.first;
  const host = hostPart === '' ? undefined : parseRange(hostPart, `invalid hostPort: ${hostPart}`);
  const anyOfRange = host !== undefined && sized === 0 && host.last !== host.first;
  if (host !== undefined && !anyOfRange && host.last - host.first !== sized) {
    throw new UsageError(`invalid ranges specified for container and host Ports: ${containerPart} and ${hostPart}`);
  }
  return Array.from({ length: sized + 1 }, (_, offset) => ({
    port: `${container.first + offset}/${protocol}`,
    binding: {
      HostIp: hostIp,
      HostPort: host === undefined ? '' : anyOfRange ? `${host.first}-${host.last}` : String(host.first + offset),
    },
  }));
}

function splitPublished(spec: string) {
  const slash = spec.lastIndexOf('/');
  const protocol = checkProtocol(slash === -1 ? 'tcp' : spec.slice(slash + 1), spec);
  const text = slash === -1 ? spec : spec.slice(0, slash);
  const bracketed = /^\[([^\]]*)\]:([^:]*):([^:]*)$/.exec(text);
  const parts = bracketed === null ? text.split(':') : [bracketed[1] ?? '', bracketed[2] ?? '', bracketed[3] ?? ''];
  const containerPart = parts.pop() ?? '';
  if (containerPart === '') throw new UsageError(`no port specified: ${spec}<empty>`);
  const hostPart = parts.pop() ?? '';
  const hostIp = parts.join(':');
  if (hostIp !== '' && !process.getBuiltinModule('node:net').isIP(hostIp.replace(/%.*$/, ''))) {
    throw new UsageError(`invalid IP address: ${hostIp}`);
  }
  return { hostIp, hostPart, containerPart, protocol };
}

/** `target=80,published=8080,protocol=tcp` in the short notation. */
function expandLongForm(spec: string): string[] {
  if (!spec.includes('=')) return [spec];
  const fields = new Map(spec.split(',').map((part) => part.split('=', 2) as [string, string]));
  for (const key of fields.keys()) {
    if (!['target', 'published', 'protocol', 'mode'].includes(key))
      throw new UsageError(`invalid field key ${key} in --publish ${spec}`);
  }
  return [`${fields.get('published') ?? ''}:${fields.get('target') ?? ''}/${fields.get('protocol') ?? 'tcp'}`];
}

function parseRange(text: string, complaint: string): { first: number; last: number } {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = match?.[2] === undefined ? first : Number(match[2]);
  if (!(first <= last) || last > 65535) throw new UsageError(complaint);
  return { first, last };
}

function checkProtocol(protocol: string, spec: string): string {
  const lower = protocol.toLowerCase();
  if (!['tcp', 'udp', 'sctp'].includes(lower)) throw new UsageError(`invalid proto: ${protocol} in ${spec}`);
  return lower;
}
