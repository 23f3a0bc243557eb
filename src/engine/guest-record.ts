import { EngineError } from '../core/errors.ts';
import type { Database, Migration } from '../platform/database.ts';
import type { ProcessIdentity } from '../platform/ffi/processes.ts';
import type { GuestView } from '../wire/guest.ts';

export const guestMigrations: readonly Migration[] = [
  {
    name: 'guests-1',
    sql: `CREATE TABLE guest (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT`,
  },
];

/** A guest as it is on disk: what it is, and what of the host it has. */
export interface GuestRecord {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly imagePath: string;
  readonly createdAtMs: number;
  /** `creating` until its disk is made; a daemon that finds it so after its own death takes it away. */
  readonly state: GuestView['state'];
  readonly reason: string;
  readonly machineType: string;
  readonly firmware: GuestView['firmware'];
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** What can be had while it runs. */
  readonly maxVcpus: number;
  readonly maxMemoryBytes: number;
  /** What its machine was started with: memory above it is plugged, below it taken back. */
  readonly bootMemoryBytes?: number;
  readonly autostart?: boolean;
  /** Somebody stopped it, or it shut itself down: the daemon's start does not start it again. */
  readonly isStoppedOnPurpose?: boolean;
  /** Kept for life, so that a guest's address does not change with its starts. */
  readonly network?: GuestNetworkRecord;
  /** Only while it runs, as the next ones. */
  readonly uid?: number;
  readonly process?: ProcessIdentity;
  readonly startedAtMs?: number;
  /** Of the host, when it was started: another one means that the host was restarted since. */
  readonly bootId?: string;
  readonly cloudInit?: { readonly status: string; readonly detail: string };
}

export interface GuestNetworkRecord {
  readonly name: string;
  readonly tap: string;
  readonly macAddress: string;
  readonly ipv4Address: string;
}

/** All guests: memory is the read side, every change goes to the state file first. */
export class GuestTable {
  readonly #database: Database;
  readonly #byId = new Map<string, GuestRecord>();

  private constructor(database: Database) {
    this.#database = database;
  }

  static load(database: Database): GuestTable {
    const table = new GuestTable(database);
    for (const row of database.all('SELECT record FROM guest')) {
      // Written by this class only; its shape is versioned by the migrations.
      const record = JSON.parse(String(row['record'])) as GuestRecord;
      table.#byId.set(record.id, record);
    }
    return table;
  }

  all(): GuestRecord[] {
    return [...this.#byId.values()].sort((left, right) => left.createdAtMs - right.createdAtMs);
  }

  get(id: string): GuestRecord | undefined {
    return this.#byId.get(id);
  }

  isNameTaken(name: string): boolean {
    return this.all().some((record) => record.name === name);
  }

  /** By name, full id, or unique id prefix. */
  find(nameOrId: string): GuestRecord {
    const exact = this.all().find((record) => record.name === nameOrId || record.id === nameOrId);
    if (exact) return exact;
    const matches = /^[0-9a-f]+$/.test(nameOrId) ? this.all().filter(({ id }) => id.startsWith(nameOrId)) : [];
    const [match] = matches;
    if (match && matches.length === 1) return match;
    throw new EngineError('not-found', `no guest ${nameOrId}; list them: bulkhead vm list`);
  }

  insert(record: GuestRecord): void {
    if (this.isNameTaken(record.name)) {
      throw new EngineError(
        'conflict',
        `there is a guest ${record.name} already; choose another name, or delete it: bulkhead vm delete ${record.name}`,
      );
    }
    this.#database.run(
      'INSERT INTO guest (id, name, record) VALUES (?, ?, ?)',
      record.id,
      record.name,
      JSON.stringify(record),
    );
    this.#byId.set(record.id, record);
  }

  update(record: GuestRecord): void {
    if (!this.#byId.has(record.id)) throw new EngineError('not-found', `no guest ${record.name}`);
    this.#database.run(
      'UPDATE guest SET name = ?, record = ? WHERE id = ?',
      record.name,
      JSON.stringify(record),
      record.id,
    );
    this.#byId.set(record.id, record);
  }

  delete(id: string): void {
    this.#database.run('DELETE FROM guest WHERE id = ?', id);
    this.#byId.delete(id);
  }
}
