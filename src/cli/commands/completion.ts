import { CATALOGUE, findCommand, GROUPS } from '../catalogue.ts';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { GLOBAL_FLAGS } from '../global-flags.ts';

/** The shell asks the program itself, so that the script never grows old. */
const BASH_SCRIPT = `# bash completion of bulkhead; load it with: source <(bulkhead completion bash)
_bulkhead() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$("\${COMP_WORDS[0]}" completion-words -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o bashdefault -o default -F _bulkhead bulkhead
`;

export const completionCommand = defineCommand({
  usage: 'bash',
  flags: {},
  arity: { min: 1, max: 1 },
  isOffline: () => true,
  run: (context, _flags, [shell = '']) => {
    if (shell !== 'bash') return Promise.reject(new UsageError(`no completion for ${shell}: only bash is supported`));
    context.stdout.write(BASH_SCRIPT);
    return Promise.resolve();
  },
});

export const completionWordsCommand = defineCommand({
  usage: '-- WORD...',
  flags: {},
  arity: { min: 0 },
  interspersed: false,
  async run(context, _flags, words) {
    for (const word of await completeWords(context, words)) printLine(context.stdout, word);
  },
});

/** What may stand where the last word of a command line is being typed. */
export async function completeWords(
  context: Pick<CommandContext, 'client'>,
  words: readonly string[],
): Promise<string[]> {
  const typed = words.at(-1) ?? '';
  const before = words.slice(0, -1);
  const visible = CATALOGUE.filter((entry) => entry.hidden !== true);
  const found = findCommand(before);
  if (found === undefined) {
    const group = before[0];
    if (group !== undefined && Object.hasOwn(GROUPS, group)) {
      return visible
        .flatMap((entry) => [entry.name, ...(entry.aliases ?? [])])
        .filter((name) => name.startsWith(`${group} `))
        .map((name) => name.slice(group.length + 1));
    }
    if (typed.startsWith('-')) return Object.keys(GLOBAL_FLAGS).map((name) => `--${name}`);
    return [
      ...visible.map((entry) => entry.name).filter((name) => !name.includes(' ')),
      ...Object.keys(GROUPS),
      'daemon',
      'doctor',
    ];
  }
  const command = await found.entry.load();
  if (typed.startsWith('-')) {
    const flags = Object.entries(command.flags).filter(([, spec]) => spec.hidden !== true);
    return ['--help', ...flags.map(([name]) => `--${name}`)];
  }
  return nameObjects(context, command.usage, found.entry.name);
}

/** Of containers that a command can do something with; a command that is not here takes them in every state. */
const LEGAL_STATES: Readonly<Record<string, readonly string[]>> = {
  attach: ['running'],
  exec: ['running'],
  kill: ['running', 'paused', 'restarting'],
  pause: ['running'],
  start: ['created', 'exited'],
  stats: ['running', 'paused'],
  stop: ['running', 'paused', 'restarting'],
  top: ['running', 'paused'],
  unpause: ['paused'],
};

/** Names of what a command is about, from the daemon; none if it does not answer. */
async function nameObjects(context: Pick<CommandContext, 'client'>, usage: string, command: string): Promise<string[]> {
  // Disk images are files: the shell knows those.
  if (command.startsWith('disk ')) return [];
  try {
    if (/\bGUEST\b/.test(usage)) return (await context.client().guests.list()).map((guest) => guest.name);
    if (command.startsWith('vm ')) return (await context.client().guests.listImages()).map((image) => image.name);
    if (/\bCONTAINER\b/.test(usage)) {
      const legal = LEGAL_STATES[command];
      const containers = await context.client().containers.list({ all: true });
      return containers
        .filter(({ State }) => legal === undefined || legal.includes(State))
        .flatMap(({ Names }) => Names.map((name) => name.replace(/^\//, '')));
    }
    if (/IMAGE\b|\bNAME\[:TAG/.test(usage))
      return (await context.client().images.list()).flatMap((image) => image.RepoTags);
    if (/\bNETWORK\b/.test(usage)) return (await context.client().networks.list()).map((network) => network.Name);
  } catch {
    // A completion that prints an error into the command line helps nobody.
  }
  return [];
}
