/** Used where the host itself has no server that a container could reach. Source: Docker's own choice, moby libnetwork/resolvconf. */
const PUBLIC_SERVERS = ['8.8.8.8', '8.8.4.4'];

/**
 * The host's resolver settings for a container: servers on the host's loopback are left out, as the container's own loopback is another
 * one. Where nothing else is left, the servers of `upstreamText` are taken.
 */
export function planResolvConf(hostText: string, upstreamText = ''): string {
  const settings = linesOf(hostText).filter((line) => /^(search|domain|options)\s/.test(line));
  const servers = [reachableServers(hostText), reachableServers(upstreamText), PUBLIC_SERVERS].find(
    (list) => list.length > 0,
  );
  return [...(servers ?? []).map((server) => `nameserver ${server}`), ...settings].join('\n');
}

function reachableServers(text: string): string[] {
  return linesOf(text)
    .map((line) => /^nameserver\s+(\S+)/.exec(line)?.[1])
    .filter((server) => server !== undefined)
    .filter((server) => !server.startsWith('127.') && server !== '::1' && !server.startsWith('fe80:'));
}

function linesOf(text: string): string[] {
  return text.split('\n').map((line) => line.trim());
}
