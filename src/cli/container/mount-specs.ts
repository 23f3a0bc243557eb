import { resolve } from 'node:path';
import { UsageError } from '../flags/parse-flags.ts';
import { parseBytes } from '../flags/quantities.ts';

export interface VolumePlan {
  readonly binds: string[];
  /** Anonymous volumes: path → `{}`, the API's notation of a set. */
  readonly volumes: Record<string, Record<string, never>>;
}

/** Reads `-v`: `/path` is an anonymous volume, `SOURCE:TARGET[:OPTIONS]` a bind. `./x` and `~` are the caller's; Docker does the same. */
export function planVolumes(specs: readonly string[], homeDirectory: string): VolumePlan {
  const binds: string[] = [];
  const volumes: Record<string, Record<string, never>> = {};
  for (const spec of specs) {
    const [source = '', ...rest] = spec.split(':');
    if (rest.length === 0) volumes[source] = {};
    else binds.push([absoluteSource(source, homeDirectory), ...rest].join(':'));
  }
  return { binds, volumes };
}

function absoluteSource(source: string, homeDirectory: string): string {
  if (source === '~' || source.startsWith('~/')) return homeDirectory + source.slice(1);
  return source.startsWith('.') ? resolve(source) : source;
}

type Draft = Record<string, unknown>;

/** Reads `--mount type=bind,src=/a,dst=/b,readonly` into the API's Mount. */
export function parseMount(spec: string): Draft {
  const mount: Draft = { Type: 'volume' };
  const within = (part: string): Draft => (mount[part] ??= {}) as Draft;
  for (const field of splitFields(spec)) {
    const equals = field.indexOf('=');
    const key = (equals === -1 ? field : field.slice(0, equals)).toLowerCase();
    const value = equals === -1 ? undefined : field.slice(equals + 1);
    const flag = (): boolean => readFlag(key, value);
    const given = (): string => {
      if (value === undefined) throw new UsageError(`invalid field '${field}' must be a key=value pair`);
      return value;
    };
    switch (key) {
      case 'type':
        mount['Type'] = given().toLowerCase();
        break;
      case 'source':
      case 'src':
        mount['Source'] = given();
        break;
      case 'target':
      case 'dst':
      case 'destination':
        mount['Target'] = given();
        break;
      case 'readonly':
      case 'ro':
        mount['ReadOnly'] = flag();
        break;
      case 'consistency':
        mount['Consistency'] = given().toLowerCase();
        break;
      case 'bind-propagation':
        within('BindOptions')['Propagation'] = given().toLowerCase();
        break;
      case 'bind-nonrecursive':
        within('BindOptions')['NonRecursive'] = flag();
        break;
      case 'bind-recursive':
        readBindRecursive(within('BindOptions'), given());
        break;
      case 'bind-create-src':
        within('BindOptions')['CreateMountpoint'] = flag();
        break;
      case 'volume-nocopy':
        within('VolumeOptions')['NoCopy'] = flag();
        break;
      case 'volume-subpath':
        within('VolumeOptions')['Subpath'] = given();
        break;
      case 'volume-label':
        addPair(within('VolumeOptions'), 'Labels', given());
        break;
      case 'volume-driver':
        ((within('VolumeOptions')['DriverConfig'] ??= {}) as Draft)['Name'] = given();
        break;
      case 'volume-opt':
        addPair((within('VolumeOptions')['DriverConfig'] ??= {}) as Draft, 'Options', given());
        break;
      case 'tmpfs-size':
        within('TmpfsOptions')['SizeBytes'] = readBytes(key, given());
        break;
      case 'tmpfs-mode':
        within('TmpfsOptions')['Mode'] = readMode(given());
        break;
      case 'image-subpath':
        within('ImageOptions')['Subpath'] = given();
        break;
      default:
        throw new UsageError(`unexpected key '${key}' in '${field}' of --mount ${spec}`);
    }
  }
  if (mount['Target'] === undefined) throw new UsageError(`target is required in --mount ${spec}`);
  if (mount['Type'] === 'bind' && typeof mount['Source'] === 'string' && mount['Source'].startsWith('.'))
    mount['Source'] = resolve(mount['Source']);
  return mount;
}

/** Comma-separated with CSV's double quotes, as `"volume-opt=o=a,b"`. */
function splitFields(spec: string): string[] {
  const fields = [...spec.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)];
  return fields.map((match) => (match[1] === undefined ? (match[2] ?? '') : match[1].replaceAll('""', '"')));
}

function readFlag(key: string, value: string | undefined): boolean {
  if (value === undefined || value === 'true' || value === '1') return true;
  if (value === 'false' || value === '0') return false;
  throw new UsageError(`invalid value for ${key}: ${value}`);
}

function readBindRecursive(options: Draft, value: string): void {
  switch (value) {
    case 'enabled':
      return;
    case 'disabled':
      options['NonRecursive'] = true;
      return;
    case 'writable':
      options['ReadOnlyNonRecursive'] = true;
      return;
    case 'readonly':
      options['ReadOnlyForceRecursive'] = true;
      return;
    default:
      throw new UsageError(
        `invalid value for bind-recursive: ${value} (must be "enabled", "disabled", "writable", or "readonly")`,
      );
  }
}

function addPair(options: Draft, member: string, text: string): void {
  const equals = text.indexOf('=');
  const map = (options[member] ??= {}) as Record<string, string>;
  map[equals === -1 ? text : text.slice(0, equals)] = equals === -1 ? '' : text.slice(equals + 1);
}

function readBytes(key: string, value: string): number {
  try {
    return parseBytes(value);
  } catch {
    throw new UsageError(`invalid value for ${key}: ${value}`);
  }
}

function readMode(value: string): number {
  if (!/^[0-7]{1,5}$/.test(value)) throw new UsageError(`invalid value for tmpfs-mode: ${value}`);
  return Number.parseInt(value, 8);
}
