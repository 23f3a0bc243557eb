import type { Command } from './command.ts';
import { GUEST_CATALOGUE } from './guest-catalogue.ts';

/** One command of the CLI; its code is loaded only when it is called. */
export interface CatalogueEntry {
  /** The name it goes by first. */
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly summary: string;
  /** Listed at the head of `bulkhead --help`. */
  readonly common?: true;
  /** In no help page: for programs. */
  readonly hidden?: true;
  load(): Promise<Command>;
}

export const GROUPS: Readonly<Record<string, string>> = {
  container: 'Manage containers',
  disk: 'Manage disk images on this host (no daemon is asked)',
  image: 'Manage images',
  network: 'Manage networks',
  system: 'Manage Bulkhead',
  vm: 'Manage guest operating systems, each in a full virtual machine',
};

export const CATALOGUE: readonly CatalogueEntry[] = [
  {
    name: 'run',
    aliases: ['container run'],
    common: true,
    summary: 'Create and run a new container from an image',
    load: async () => (await import('./commands/run.ts')).runCommand,
  },
  {
    name: 'exec',
    aliases: ['container exec'],
    common: true,
    summary: 'Execute a command in a running container',
    load: async () => (await import('./commands/exec.ts')).execCommand,
  },
  {
    name: 'ps',
    aliases: ['container ls', 'container list', 'container ps'],
    common: true,
    summary: 'List containers',
    load: async () => (await import('./commands/ps.ts')).psCommand,
  },
  {
    name: 'pull',
    aliases: ['image pull'],
    common: true,
    summary: 'Download an image from a registry',
    load: async () => (await import('./commands/pull.ts')).pullCommand,
  },
  {
    name: 'push',
    aliases: ['image push'],
    common: true,
    summary: 'Upload an image to a registry',
    load: async () => (await import('./commands/push.ts')).pushCommand,
  },
  {
    name: 'images',
    aliases: ['image ls', 'image list'],
    common: true,
    summary: 'List images',
    load: async () => (await import('./commands/images.ts')).imagesCommand,
  },
  {
    name: 'login',
    common: true,
    summary: 'Authenticate to a registry',
    load: async () => (await import('./commands/login.ts')).loginCommand,
  },
  {
    name: 'logout',
    common: true,
    summary: 'Log out from a registry',
    load: async () => (await import('./commands/login.ts')).logoutCommand,
  },
  {
    name: 'version',
    common: true,
    summary: 'Show the Bulkhead version information',
    load: async () => (await import('./commands/version.ts')).versionCommand,
  },
  {
    name: 'info',
    aliases: ['system info'],
    common: true,
    summary: 'Display system-wide information',
    load: async () => (await import('./commands/info.ts')).infoCommand,
  },
  {
    name: 'attach',
    aliases: ['container attach'],
    summary: 'Attach local standard input, output, and error streams to a running container',
    load: async () => (await import('./commands/attach.ts')).attachCommand,
  },
  {
    name: 'create',
    aliases: ['container create'],
    summary: 'Create a new container',
    load: async () => (await import('./commands/create.ts')).createCommand,
  },
  {
    name: 'events',
    aliases: ['system events'],
    summary: 'Get real time events from the server',
    load: async () => (await import('./commands/events.ts')).eventsCommand,
  },
  {
    name: 'history',
    aliases: ['image history'],
    summary: 'Show the history of an image',
    load: async () => (await import('./commands/history.ts')).historyCommand,
  },
  {
    name: 'inspect',
    summary: 'Return low-level information on Docker objects',
    load: async () => (await import('./commands/inspect.ts')).inspectCommand,
  },
  {
    name: 'container inspect',
    summary: 'Display detailed information on one or more containers',
    load: async () => (await import('./commands/inspect.ts')).containerInspectCommand,
  },
  {
    name: 'image inspect',
    summary: 'Display detailed information on one or more images',
    load: async () => (await import('./commands/inspect.ts')).imageInspectCommand,
  },
  {
    name: 'network inspect',
    summary: 'Display detailed information on one or more networks',
    load: async () => (await import('./commands/inspect.ts')).networkInspectCommand,
  },
  {
    name: 'network create',
    summary: 'Create a network',
    load: async () => (await import('./commands/networks.ts')).networkCreateCommand,
  },
  {
    name: 'network rm',
    aliases: ['network remove'],
    summary: 'Remove one or more networks',
    load: async () => (await import('./commands/networks.ts')).networkRemoveCommand,
  },
  {
    name: 'network connect',
    summary: 'Connect a container to a network',
    load: async () => (await import('./commands/networks.ts')).networkConnectCommand,
  },
  {
    name: 'network disconnect',
    summary: 'Disconnect a container from a network',
    load: async () => (await import('./commands/networks.ts')).networkDisconnectCommand,
  },
  {
    name: 'network prune',
    summary: 'Remove all unused networks',
    load: async () => (await import('./commands/prune.ts')).networkPruneCommand,
  },
  {
    name: 'kill',
    aliases: ['container kill'],
    summary: 'Kill one or more running containers',
    load: async () => (await import('./commands/lifecycle.ts')).killCommand,
  },
  {
    name: 'load',
    aliases: ['image load'],
    summary: 'Load an image from a tar archive or STDIN',
    load: async () => (await import('./commands/archives.ts')).loadCommand,
  },
  {
    name: 'logs',
    aliases: ['container logs'],
    summary: 'Fetch the logs of a container',
    load: async () => (await import('./commands/logs.ts')).logsCommand,
  },
  {
    name: 'pause',
    aliases: ['container pause'],
    summary: 'Pause all processes within one or more containers',
    load: async () => (await import('./commands/lifecycle.ts')).pauseCommand,
  },
  {
    name: 'port',
    aliases: ['container port'],
    summary: 'List port mappings or a specific mapping for the container',
    load: async () => (await import('./commands/port.ts')).portCommand,
  },
  {
    name: 'rename',
    aliases: ['container rename'],
    summary: 'Rename a container',
    load: async () => (await import('./commands/lifecycle.ts')).renameCommand,
  },
  {
    name: 'restart',
    aliases: ['container restart'],
    summary: 'Restart one or more containers',
    load: async () => (await import('./commands/lifecycle.ts')).restartCommand,
  },
  {
    name: 'rm',
    aliases: ['container rm', 'container remove'],
    summary: 'Remove one or more containers',
    load: async () => (await import('./commands/lifecycle.ts')).rmCommand,
  },
  {
    name: 'rmi',
    aliases: ['image rm', 'image remove'],
    summary: 'Remove one or more images',
    load: async () => (await import('./commands/rmi.ts')).rmiCommand,
  },
  {
    name: 'save',
    aliases: ['image save'],
    summary: 'Save one or more images to a tar archive (streamed to STDOUT by default)',
    load: async () => (await import('./commands/archives.ts')).saveCommand,
  },
  {
    name: 'start',
    aliases: ['container start'],
    summary: 'Start one or more stopped containers',
    load: async () => (await import('./commands/start.ts')).startCommand,
  },
  {
    name: 'stats',
    aliases: ['container stats'],
    summary: 'Display a live stream of container(s) resource usage statistics',
    load: async () => (await import('./commands/stats.ts')).statsCommand,
  },
  {
    name: 'stop',
    aliases: ['container stop'],
    summary: 'Stop one or more running containers',
    load: async () => (await import('./commands/lifecycle.ts')).stopCommand,
  },
  {
    name: 'tag',
    aliases: ['image tag'],
    summary: 'Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE',
    load: async () => (await import('./commands/tag.ts')).tagCommand,
  },
  {
    name: 'top',
    aliases: ['container top'],
    summary: 'Display the running processes of a container',
    load: async () => (await import('./commands/top.ts')).topCommand,
  },
  {
    name: 'unpause',
    aliases: ['container unpause'],
    summary: 'Unpause all processes within one or more containers',
    load: async () => (await import('./commands/lifecycle.ts')).unpauseCommand,
  },
  {
    name: 'update',
    aliases: ['container update'],
    summary: 'Update configuration of one or more containers',
    load: async () => (await import('./commands/update.ts')).updateCommand,
  },
  {
    name: 'wait',
    aliases: ['container wait'],
    summary: 'Block until one or more containers stop, then print their exit codes',
    load: async () => (await import('./commands/lifecycle.ts')).waitCommand,
  },
  {
    name: 'container prune',
    summary: 'Remove all stopped containers',
    load: async () => (await import('./commands/prune.ts')).containerPruneCommand,
  },
  {
    name: 'image prune',
    summary: 'Remove unused images',
    load: async () => (await import('./commands/prune.ts')).imagePruneCommand,
  },
  {
    name: 'network ls',
    aliases: ['network list'],
    summary: 'List networks',
    load: async () => (await import('./commands/networks.ts')).networkListCommand,
  },
  ...GUEST_CATALOGUE,
  {
    name: 'system df',
    summary: 'Show disk usage',
    load: async () => (await import('./commands/disk-usage.ts')).diskUsageCommand,
  },
  {
    name: 'system dial-stdio',
    hidden: true,
    summary: "Join standard input and output to the daemon's socket (what ssh:// runs on the far machine)",
    load: async () => (await import('./commands/dial-stdio.ts')).dialStdioCommand,
  },
  {
    name: 'completion',
    summary: 'Print the completion script of a shell (bash)',
    load: async () => (await import('./commands/completion.ts')).completionCommand,
  },
  {
    name: 'completion-words',
    hidden: true,
    summary: 'Words that may follow on a command line (what the completion script calls)',
    load: async () => (await import('./commands/completion.ts')).completionWordsCommand,
  },
];

/** `group verb` commands are also reached by their aliases; the longest name that fits the words wins. */
export function findCommand(
  words: readonly string[],
): { entry: CatalogueEntry; rest: readonly string[]; spelled: string } | undefined {
  for (const length of [3, 2, 1]) {
    if (words.length < length) continue;
    const spelled = words.slice(0, length).join(' ');
    const entry = CATALOGUE.find(
      (candidate) => candidate.name === spelled || candidate.aliases?.includes(spelled) === true,
    );
    if (entry !== undefined) return { entry, rest: words.slice(length), spelled };
  }
  return undefined;
}

/** The names a user may have meant, nearest first; none if all are far off. */
export function findClosestName(typed: string, names: readonly string[]): string | undefined {
  const ranked = names
    .map((name) => ({ name, distance: editDistance(typed, name) }))
    .sort((left, right) => left.distance - right.distance);
  const best = ranked[0];
  return best !== undefined && best.distance <= Math.max(2, Math.floor(typed.length / 3)) ? best.name : undefined;
}

/** Levenshtein's. */
function editDistance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= right.length; j += 1) {
      const substitution = (row[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[right.length] ?? 0;
}
