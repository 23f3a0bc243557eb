import type { Database, Migration } from '../platform/database.ts';
import { EngineError } from '../core/errors.ts';
import type { ContainerRecord } from './container-record.ts';

export const containerMigrations: readonly Migration[] = [
  {
    name: 'containers-1',
    sql: `CREATE TABLE container (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT`,
  },
];

/** All containers: memory is the read side, every change goes to the state file first. */
export class ContainerTable {
  readonly #database: Database;
  readonly #byId = new Map<string, ContainerRecord>();
  readonly #idByName = new Map<string, string>();
  /** Gone for everybody outside; what is left of them is being cleared away. */
  readonly #retired = new Set<string>();

  private constructor(database: Database) {
    this.#database = database;
  }

  static load(database: Database): ContainerTable {
    const table = new ContainerTable(database);
    for (const row of database.all('SELECT record FROM container')) {
      // Written by this class only; its shape is versioned by the migrations.
      table.#remember(JSON.parse(String(row['record'])) as ContainerRecord);
    }
    return table;
  }

  all(): ContainerRecord[] {
    return [...this.#byId.values()].filter(({ id }) => !this.#retired.has(id));
  }

  /** From now on it is neither listed nor found. Its name stays taken until it is deleted. */
  retire(id: string): void {
    this.#retired.add(id);
  }

  isRetired(id: string): boolean {
    return this.#retired.has(id);
  }

  /** The retired container that has this name. */
  retiredOwner(name: string): string | undefined {
    const id = this.#idByName.get(name);
    return id !== undefined && this.#retired.has(id) ? id : undefined;
  }

  get(id: string): ContainerRecord | undefined {
    return this.#byId.get(id);
  }

  isNameTaken(name: string): boolean {
    return this.#idByName.has(name);
  }

  /** By full id, exact name (with or without the slash), or unique id prefix. */
  find(nameOrId: string): ContainerRecord {
    const name = nameOrId.replace(/^\//, '');
    const exact = this.#byId.get(name) ?? this.#byId.get(this.#idByName.get(name) ?? '');
    if (exact && !this.#retired.has(exact.id)) return exact;
    const matches = /^[0-9a-f]+$/.test(name)
      ? [...this.#byId.keys()].filter((id) => id.startsWith(name) && !this.#retired.has(id))
      : [];
    if (matches.length > 1) {
      throw new EngineError('invalid-argument', `multiple IDs found with provided prefix: ${name}`);
    }
    const match = this.#byId.get(matches[0] ?? '');
    if (!match) throw new EngineError('not-found', `No such container: ${nameOrId}`);
    return match;
  }

  insert(record: ContainerRecord): void {
    const owner = this.#idByName.get(record.name);
    if (owner !== undefined) {
      throw new EngineError(
        'conflict',
        `Conflict. The container name "/${record.name}" is already in use by container "${owner}". ` +
          'You have to remove (or rename) that container to be able to reuse that name.',
      );
    }
    this.#database.run(
      'INSERT INTO container (id, name, record) VALUES (?, ?, ?)',
      record.id,
      record.name,
      JSON.stringify(record),
    );
    this.#remember(record);
  }

  update(record: ContainerRecord): void {
    const before = this.#byId.get(record.id);
    if (!before) throw new EngineError('not-found', `No such container: ${record.id}`);
    this.#database.run(
      'UPDATE container SET name = ?, record = ? WHERE id = ?',
      record.name,
      JSON.stringify(record),
      record.id,
    );
    this.#idByName.delete(before.name);
    this.#remember(record);
  }

  delete(id: string): void {
    this.#database.run('DELETE FROM container WHERE id = ?', id);
    const record = this.#byId.get(id);
    if (!record) return;
    this.#byId.delete(id);
    this.#retired.delete(id);
    this.#idByName.delete(record.name);
  }

  #remember(record: ContainerRecord): void {
    this.#byId.set(record.id, record);
    this.#idByName.set(record.name, record.id);
  }
}
