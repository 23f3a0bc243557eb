import { EngineError } from '../core/errors.ts';
import { parseImageReference, repositoryName } from '../core/image-reference.ts';
import type { ImageRecord } from '../oci/image-records.ts';
import type { ImageStore } from '../oci/image-store.ts';
import type { Filters } from './engine.ts';

const LIST_FILTERS = ['dangling', 'label', 'label!', 'before', 'since', 'reference', 'until'];
const PRUNE_FILTERS = ['dangling', 'label', 'label!', 'until'];

/** What filters ask of the store. */
type Shelf = Pick<ImageStore, 'list' | 'resolve' | 'childrenOf'>;

/** The images that `docker images` shows. Without `all`, unnamed images that others were built on are left out. */
export function selectImages(store: Shelf, filters: Filters, options: { all: boolean }): ImageRecord[] {
  requireKnown(filters, LIST_FILTERS);
  const keeps = [
    danglingFilter(filters),
    labelFilter(filters),
    timeFilter(store, filters),
    referenceFilter(filters.get('reference') ?? []),
  ];
  const isShown = (image: ImageRecord): boolean =>
    options.all || image.repoTags.length > 0 || image.repoDigests.length > 0 || store.childrenOf(image.id).length === 0;
  return store.list().filter((image) => isShown(image) && keeps.every((keep) => keep(image)));
}

/** The images that a prune is about, used or not: unnamed ones, with `dangling=false` all. */
export function selectPrunable(store: Shelf, filters: Filters): ImageRecord[] {
  requireKnown(filters, PRUNE_FILTERS);
  const onlyUnnamed = danglingValue(filters) ?? true;
  const others = new Map([...filters].filter(([key]) => key !== 'dangling'));
  return selectImages(store, others, { all: false }).filter((image) => !onlyUnnamed || image.repoTags.length === 0);
}

function requireKnown(filters: Filters, known: readonly string[]): void {
  for (const key of filters.keys()) {
    if (!known.includes(key)) throw new EngineError('invalid-argument', `invalid filter '${key}'`);
  }
}

type ImageFilter = (image: ImageRecord) => boolean;

/** The `dangling` filter's value; undefined where it is not given. */
function danglingValue(filters: Filters): boolean | undefined {
  const values = filters.get('dangling');
  if (values === undefined || values.length === 0) return undefined;
  const isTrue = values.some((value) => value === 'true' || value === '1');
  const isFalse = values.some((value) => value === 'false' || value === '0');
  if (isTrue === isFalse) throw new EngineError('invalid-argument', `invalid filter 'dangling=${values.join(',')}'`);
  return isTrue;
}

function danglingFilter(filters: Filters): ImageFilter {
  const wanted = danglingValue(filters);
  return (image) => wanted === undefined || (image.repoTags.length === 0) === wanted;
}

/** `label` needs all of its values, `label!` none. */
function labelFilter(filters: Filters): ImageFilter {
  const wanted = filters.get('label') ?? [];
  const unwanted = filters.get('label!') ?? [];
  return (image) => {
    const labels = image.config.config.Labels ?? {};
    const has = (label: string): boolean => {
      const [name = '', ...value] = label.split('=');
      return Object.hasOwn(labels, name) && (!label.includes('=') || labels[name] === value.join('='));
    };
    return wanted.every(has) && !unwanted.some(has);
  };
}

/** `before` and `since` name images, `until` a moment: all compare creation times. */
function timeFilter(store: Shelf, filters: Filters): ImageFilter {
  const before = (filters.get('before') ?? []).map((name) => createdSeconds(store.resolve(name)));
  const since = (filters.get('since') ?? []).map((name) => createdSeconds(store.resolve(name)));
  const until = (filters.get('until') ?? []).map(parseMoment);
  return (image) => {
    const own = createdSeconds(image);
    return [...before, ...until].every((limit) => own < limit) && since.every((limit) => own > limit);
  };
}

/** Since 1970, where images without a creation time count as made. */
function createdSeconds(image: ImageRecord): number {
  return (Date.parse(image.config.created ?? '') || 0) / 1000;
}

const DURATION_UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/** Seconds since 1970 of a timestamp, RFC 3339, or a Go duration before now (`24h`, `1h30m`). */
export function parseMoment(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  if (/^(\d+[smh])+$/.test(text)) {
    const parts = [...text.matchAll(/(\d+)([smh])/g)];
    const seconds = parts.reduce(
      (sum, [, count, unit]) => sum + Number(count) * (DURATION_UNIT_SECONDS[unit ?? ''] ?? 0),
      0,
    );
    return Date.now() / 1000 - seconds;
  }
  const timeMs = Date.parse(text);
  if (Number.isNaN(timeMs)) throw new EngineError('invalid-argument', `invalid filter 'until=${text}'`);
  return timeMs / 1000;
}

/** `alpine`, `alpine:3*`, `docker.io/library/alpine`: a pattern on the familiar or whole name, with or without the tag; any may fit. */
function referenceFilter(patterns: readonly string[]): ImageFilter {
  if (patterns.length === 0) return () => true;
  const expressions = patterns.map(globExpression);
  return (image) =>
    [...image.repoTags, ...image.repoDigests].some((name) =>
      spellings(name).some((text) => expressions.some((e) => e.test(text))),
    );
}

function spellings(name: string): string[] {
  const reference = parseImageReference(name);
  const suffix = reference.digest === undefined ? `:${reference.tag ?? 'latest'}` : `@${reference.digest}`;
  const repository = repositoryName(reference);
  const familiar = name.slice(0, name.length - suffix.length);
  return [name, familiar, `${repository}${suffix}`, repository];
}

/** Go's path.Match: `*` and `?` stop at a slash. */
function globExpression(pattern: string): RegExp {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll(/\*+/g, '[^/]*')
    .replaceAll('?', '[^/]');
  return new RegExp(`^${source}$`);
}
