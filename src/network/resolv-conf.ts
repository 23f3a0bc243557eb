/** Used where the host itself has no server that a container could reach. Source: Docker's own choice, moby libnetwork/resolvconf. */
const PUBLIC_SERVERS = ['8.8.8.8', '8.8.4.4'];

/**
 * The host's resolver settings for a container: servers on the host's loopback are left out, as the container's own loopback is another
 * one.
 */
export function planResolvConf(hostText: string): string {
  const lines = hostText.split('\n').map((line) => line.trim());
  const settings = lines.filter((line) => /^(search|domain|options)\s/.test(line));
  const servers = lines
    .map((line) => /^nameserver\s+(\S+)/.exec(line)?.[1])
    .filter((server) => server !== undefined)
    .filter((server) => !server.startsWith('127.') && server !== '::1' && !server.startsWith('fe80:'));
  const chosen = servers.length > 0 ? servers : PUBLIC_SERVERS;
  return [...chosen.map((server) => `nameserver ${server}`), ...settings].join('\n');
}
