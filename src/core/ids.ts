import { randomBytes } from 'node:crypto';

/** 64 hex digits, as Docker's container, network and endpoint ids. */
export function newId(): string {
  return randomBytes(32).toString('hex');
}

/** The 12 digits that people see and that names of host resources are made from. */
export function shortId(id: string): string {
  return id.slice(0, 12);
}

/** An interface name has 15 bytes at most: the daemon's prefix, a letter for its kind, and enough of its owner's id to find that by. */
export function interfaceName(prefix: string, kind: string, id: string): string {
  return `${prefix}${kind}${id.slice(0, 14 - prefix.length)}`;
}

const NAME_PATTERN = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** Docker's rule for container names, without the leading slash. */
export function isContainerName(name: string): boolean {
  return NAME_PATTERN.test(name);
}

const ADJECTIVES = [
  'amber',
  'brisk',
  'calm',
  'deft',
  'eager',
  'fair',
  'gentle',
  'hardy',
  'ivory',
  'jolly',
  'keen',
  'lucid',
  'merry',
  'noble',
  'opal',
  'plucky',
  'quiet',
  'ready',
  'sturdy',
  'tidy',
  'upbeat',
  'vivid',
  'warm',
  'young',
  'zesty',
  'bold',
  'crisp',
  'dapper',
] as const;

const VESSELS = [
  'anchor',
  'barge',
  'brig',
  'canoe',
  'clipper',
  'cog',
  'cutter',
  'dhow',
  'dinghy',
  'felucca',
  'ferry',
  'frigate',
  'galley',
  'gondola',
  'junk',
  'kayak',
  'ketch',
  'launch',
  'lugger',
  'packet',
  'pinnace',
  'schooner',
  'skiff',
  'sloop',
  'trawler',
  'tug',
  'wherry',
  'yawl',
] as const;

/** A name for a container whose user gave none: two words, and a number once those are taken. */
export function generateName(isTaken: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt++) {
    const [first = 0, second = 0, third = 0] = randomBytes(3);
    const words = `${ADJECTIVES[first % ADJECTIVES.length]}_${VESSELS[second % VESSELS.length]}`;
    const name = attempt < 5 ? words : `${words}${third}${attempt}`;
    if (!isTaken(name)) return name;
  }
}
