import { BlockList, isIP } from 'node:net';
import { EngineError } from '../../core/errors.ts';

/** One way to reach a registry; several are tried in order. */
export interface RegistryEndpoint {
  /** Without a trailing slash: `https://registry-1.docker.io`. */
  readonly baseUrl: string;
  readonly isMirror: boolean;
  /** Whether plain HTTP and unverifiable certificates are accepted on this host. */
  readonly isInsecure: boolean;
}

export interface EndpointOptions {
  /** URLs of mirrors of docker.io, in the order to try. */
  readonly mirrors: readonly string[];
  /** `host`, `host:port` or CIDR, as in Docker's `insecure-registries`. */
  readonly insecureRegistries: readonly string[];
}

const DOCKER_HUB = 'registry-1.docker.io';

/** Docker Hub's mirrors first; HTTPS first everywhere; HTTP only on loopback and on hosts the operator called insecure. */
export function endpointsOf(domain: string, options: EndpointOptions): RegistryEndpoint[] {
  if (domain === 'docker.io') {
    const mirrors = options.mirrors.map((url) => mirrorEndpoint(url, options));
    return [...mirrors, { baseUrl: `https://${DOCKER_HUB}`, isMirror: false, isInsecure: false }];
  }
  const isInsecure = isInsecureHost(domain, options.insecureRegistries);
  const secure: RegistryEndpoint = { baseUrl: `https://${domain}`, isMirror: false, isInsecure };
  return isInsecure ? [secure, { baseUrl: `http://${domain}`, isMirror: false, isInsecure }] : [secure];
}

function mirrorEndpoint(text: string, options: EndpointOptions): RegistryEndpoint {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.search || url.hash || url.username || url.password) {
    throw new EngineError(
      'invalid-argument',
      `registry mirror "${text}" is not valid: give http://HOST[:PORT] or https://HOST[:PORT]`,
    );
  }
  const isInsecure = isInsecureHost(url.host, options.insecureRegistries);
  if (url.protocol === 'http:' && !isInsecure) {
    throw new EngineError(
      'invalid-argument',
      `registry mirror "${text}" uses plain HTTP; use https, or allow it with --insecure-registry ${url.host}`,
    );
  }
  return { baseUrl: `${url.origin}${url.pathname.replace(/\/+$/, '')}`, isMirror: true, isInsecure };
}

export function isInsecureHost(host: string, insecureRegistries: readonly string[]): boolean {
  const name = hostName(host);
  if (isLoopbackName(name)) return true;
  return insecureRegistries.some((entry) =>
    entry.includes('/') ? isInSubnet(name, entry) : entry === host || entry === name,
  );
}

function hostName(host: string): string {
  return host
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
}

function isLoopbackName(name: string): boolean {
  return name === 'localhost' || name === '::1' || isInSubnet(name, '127.0.0.0/8');
}

function isInSubnet(address: string, cidr: string): boolean {
  const [network = '', prefix = ''] = cidr.split('/');
  const version = isIP(network);
  if (version === 0 || isIP(address) !== version) return false;
  const family = version === 4 ? 'ipv4' : 'ipv6';
  const subnet = new BlockList();
  try {
    subnet.addSubnet(network, Number(prefix), family);
  } catch {
    return false;
  }
  return subnet.check(address, family);
}
