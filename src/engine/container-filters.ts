import { isRunning } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import type { ContainerView, Filters } from './engine.ts';

const KEYS = new Set([
  'ancestor',
  'before',
  'exited',
  'expose',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'volume',
]);
const LONGEST_PATTERN = 128;
const STATUSES = new Set(['created', 'running', 'paused', 'restarting', 'removing', 'exited', 'dead']);

export interface FilterContext {
  /** All containers, for `before` and `since`. */
  readonly find: (nameOrId: string) => ContainerView;
  /** Image id of a name, or undefined. */
  readonly imageId: (name: string) => string | undefined;
}

/** The containers that `docker ps` with these options shows, newest first. Source: moby daemon/list.go. */
export function filterContainers(
  views: readonly ContainerView[],
  options: { all: boolean; limit: number; filters: Filters },
  context: FilterContext,
): ContainerView[] {
  const { filters } = options;
  for (const key of filters.keys()) {
    if (!KEYS.has(key)) throw new EngineError('invalid-argument', `invalid filter '${key}'`);
  }
  for (const status of filters.get('status') ?? []) {
    if (!STATUSES.has(status)) throw new EngineError('invalid-argument', `invalid filter 'status=${status}'`);
  }
  const showsAll =
    options.all || options.limit > 0 || ['status', 'before', 'since', 'exited'].some((key) => filters.has(key));
  const sorted = [...views].sort((first, second) => second.createdAtMs - first.createdAtMs);
  const matching = sorted.filter(
    (view) =>
      (showsAll || isRunning(view.state)) &&
      [...filters].every(([key, values]) => values.length === 0 || matches(view, key, values, context)),
  );
  return options.limit > 0 ? matching.slice(0, options.limit) : matching;
}

function matches(view: ContainerView, key: string, values: readonly string[], context: FilterContext): boolean {
  switch (key) {
    case 'id':
      return values.some((value) => asPattern(value).test(view.id));
    case 'name':
      return values.some((value) => asPattern(value).test(view.name) || asPattern(value).test(`/${view.name}`));
    case 'status':
      return values.includes(view.state.status);
    case 'exited':
      return view.state.status === 'exited' && values.includes(String(view.state.exitCode));
    case 'label': {
      const labels = view.config.Labels ?? {};
      return values.every((value) => {
        const at = value.indexOf('=');
        const name = at < 0 ? value : value.slice(0, at);
        return Object.hasOwn(labels, name) && (at < 0 || labels[name] === value.slice(at + 1));
      });
    }
    case 'ancestor':
      return values.some((value) => context.imageId(value) === view.imageId);
    case 'before':
      return values.every((value) => view.createdAtMs < context.find(value).createdAtMs);
    case 'since':
      return values.every((value) => view.createdAtMs > context.find(value).createdAtMs);
    case 'network':
      return values.some((value) =>
        Object.entries(view.networks).some(
          ([name, endpoint]) => name === value || endpoint.networkId.startsWith(value),
        ),
      );
    case 'isolation':
      return values.includes(view.facts.wall);
    case 'health':
      return values.includes('none');
    case 'is-task':
      return values.some((value) => value === 'false' || value === '0');
    case 'publish':
      return values.some((value) =>
        Object.entries(view.ports).some(
          ([port, hosts]) =>
            port.startsWith(`${value}/`) || (hosts ?? []).some((host) => String(host.hostPort) === value),
        ),
      );
    case 'expose':
      return values.some((value) =>
        Object.keys(view.ports).some((port) => port === value || port.startsWith(`${value}/`)),
      );
    default:
      return false;
  }
}

/** Docker takes names and ids as regular expressions; a broken one matches literally rather than failing the list. */
function asPattern(text: string): RegExp {
  // A pattern is the client's: nested repetitions would keep the daemon's only thread busy for ever.
  if (text.length > LONGEST_PATTERN || /[*+}]\)?[*+{]|\([^)]*[*+{][^)]*\)[*+{]/.test(text)) return literalPattern(text);
  try {
    return new RegExp(text);
  } catch {
    return literalPattern(text);
  }
}

function literalPattern(text: string): RegExp {
  return new RegExp(text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'));
}
