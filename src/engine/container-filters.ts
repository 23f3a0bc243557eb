import { isRunning } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import type { ContainerRecord } from './container-record.ts';
import type { ContainerView, Filters } from './engine.ts';
import { parseMoment } from './image-filters.ts';

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
const PRUNE_KEYS = new Set(['label', 'label!', 'until']);
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
    case 'label':
      return values.every((value) => hasLabel(view, value));
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
      return values.includes(view.health?.status ?? 'none');
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

/** The containers that a prune is about: those that do not run. `label` needs all of its values, `label!` none. */
export function selectPrunable(records: readonly ContainerRecord[], filters: Filters): ContainerRecord[] {
  for (const key of filters.keys()) {
    if (!PRUNE_KEYS.has(key)) throw new EngineError('invalid-argument', `invalid filter '${key}'`);
  }
  const untilMs = (filters.get('until') ?? []).map((text) => parseMoment(text) * 1000);
  return records.filter(
    (record) =>
      ['created', 'exited', 'dead'].includes(record.state.status) &&
      untilMs.every((limit) => record.createdAtMs < limit) &&
      (filters.get('label') ?? []).every((label) => hasLabel(record, label)) &&
      !(filters.get('label!') ?? []).some((label) => hasLabel(record, label)),
  );
}

/** `name` or `name=value`. */
function hasLabel({ config }: Pick<ContainerView, 'config'>, label: string): boolean {
  const labels = config.Labels ?? {};
  const at = label.indexOf('=');
  const name = at < 0 ? label : label.slice(0, at);
  return Object.hasOwn(labels, name) && (at < 0 || labels[name] === label.slice(at + 1));
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
