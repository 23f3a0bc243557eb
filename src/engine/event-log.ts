import { LONGEST_TIMER_MS } from '../core/deadline.ts';
import { EngineError } from '../core/errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { EngineEvent, EventLog, Filters } from './engine.ts';

/** How many past events `since` can reach, as in dockerd. */
const RING_SIZE = 256;
/** A subscriber that is this far behind is cut off: it must not cost the daemon memory without limit. */
const MAXIMUM_BACKLOG = 10_000;

const FILTER_KEYS = new Set([
  'config',
  'container',
  'daemon',
  'event',
  'image',
  'label',
  'network',
  'node',
  'plugin',
  'scope',
  'secret',
  'service',
  'type',
  'volume',
]);
/** Events with an argument in their name: a filter for the bare name matches them all. */
const PREFIX_EVENTS = ['health_status', 'exec_create', 'exec_start'];

export class EventRing implements EventLog {
  readonly #clock: Clock;
  readonly #past: EngineEvent[] = [];
  readonly #subscribers = new Set<(event: EngineEvent) => void>();
  #lastNs = 0n;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  publish(event: Omit<EngineEvent, 'timeNs'>): void {
    // Two events never bear the same time, so that a client can resume with `since`.
    const now = this.#clock.realtimeNs();
    this.#lastNs = now > this.#lastNs ? now : this.#lastNs + 1n;
    const stamped = { ...event, timeNs: this.#lastNs };
    this.#past.push(stamped);
    if (this.#past.length > RING_SIZE) this.#past.shift();
    for (const deliver of this.#subscribers) deliver(stamped);
  }

  subscribe(options: {
    sinceNs: bigint | undefined;
    untilNs: bigint | undefined;
    filters: Filters;
    signal: AbortSignal;
  }): AsyncIterable<EngineEvent> {
    for (const key of options.filters.keys()) {
      if (!FILTER_KEYS.has(key)) throw new EngineError('invalid-argument', `invalid filter '${key}'`);
    }
    const { sinceNs, untilNs, filters, signal } = options;
    const matches = (event: EngineEvent): boolean => eventMatches(event, filters);
    const queue: EngineEvent[] =
      sinceNs === undefined && untilNs === undefined
        ? []
        : this.#past.filter(
            (event) =>
              event.timeNs >= (sinceNs ?? 0n) && (untilNs === undefined || event.timeNs <= untilNs) && matches(event),
          );
    return this.#follow(queue, matches, untilNs, signal);
  }

  async *#follow(
    queue: EngineEvent[],
    matches: (event: EngineEvent) => boolean,
    untilNs: bigint | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<EngineEvent> {
    let wake: () => void = () => undefined;
    let isOverrun = false;
    const deliver = (event: EngineEvent): void => {
      if (!matches(event)) return;
      if (queue.length >= MAXIMUM_BACKLOG) isOverrun = true;
      else queue.push(event);
      wake();
    };
    const remainingMs = untilNs === undefined ? undefined : Number((untilNs - this.#clock.realtimeNs()) / 1_000_000n);
    const isPast = remainingMs !== undefined && remainingMs <= 0;
    const end =
      remainingMs === undefined || isPast ? undefined : AbortSignal.timeout(Math.min(remainingMs, LONGEST_TIMER_MS));
    const stop = end ? AbortSignal.any([signal, end]) : signal;
    const onStop = (): void => wake();
    if (!isPast) this.#subscribers.add(deliver);
    stop.addEventListener('abort', onStop);
    try {
      for (;;) {
        for (let next = queue.shift(); next; next = queue.shift()) yield next;
        if (isOverrun)
          throw new EngineError('unavailable', 'this reader of events is too slow; ask again with --since');
        if (isPast || stop.aborted) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      this.#subscribers.delete(deliver);
      stop.removeEventListener('abort', onStop);
    }
  }
}

function eventMatches(event: EngineEvent, filters: Filters): boolean {
  return [...filters].every(([key, values]) => values.length === 0 || filterMatches(event, key, values));
}

function filterMatches(event: EngineEvent, key: string, values: readonly string[]): boolean {
  const { attributes } = event;
  switch (key) {
    case 'event':
      return values.some((value) =>
        PREFIX_EVENTS.includes(value) ? event.action.startsWith(value) : event.action === value,
      );
    case 'type':
      return values.includes(event.type);
    case 'scope':
      return values.includes('local');
    case 'label':
      return values.every((value) => {
        const [name = '', wanted] = splitOnce(value, '=');
        return Object.hasOwn(attributes, name) && (wanted === undefined || attributes[name] === wanted);
      });
    case 'image':
      return values.some((value) =>
        event.type === 'image'
          ? nameMatches(event, value)
          : event.type === 'container' && (attributes['image'] ?? '').startsWith(value),
      );
    case 'container':
    case 'network':
    case 'volume':
    case 'daemon':
      return event.type === key && values.some((value) => nameMatches(event, value));
    default:
      return false;
  }
}

function nameMatches(event: EngineEvent, value: string): boolean {
  return event.actorId.startsWith(value) || (event.attributes['name'] ?? '').startsWith(value);
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}
