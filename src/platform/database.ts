import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { EngineError } from '../core/errors.ts';

/** Tables of one room. `statements` run once, in order of `version`, inside one transaction. */
export interface Migration {
  /** Unique over all rooms, for example `images-1`. */
  readonly name: string;
  readonly sql: string;
}

/**
 * The daemon's state file. WAL with synchronous=NORMAL: a crash of the process loses nothing, a crash of the host may lose the
 * last transactions but never corrupts, and start-up reconciles with reality anyway.
 * Source: https://sqlite.org/pragma.html#pragma_synchronous
 */
export class Database implements Disposable {
  readonly #connection: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(connection: DatabaseSync) {
    this.#connection = connection;
  }

  /** Opens (creating it if need be) the file and applies what migrations it lacks. `:memory:` is a database of its own. */
  static open(path: string, migrations: readonly Migration[]): Database {
    if (path !== ':memory:') mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const connection = new DatabaseSync(path);
    try {
      connection.exec(
        'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=2000',
      );
      connection.exec('CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY) STRICT');
      const database = new Database(connection);
      const applied = new Set(database.all('SELECT name FROM migration').map((row) => row['name']));
      for (const migration of migrations.filter(({ name }) => !applied.has(name))) {
        database.transaction(() => {
          connection.exec(migration.sql);
          database.run('INSERT INTO migration (name) VALUES (?)', migration.name);
        });
      }
      return database;
    } catch (error) {
      connection.close();
      throw new EngineError('internal', `cannot open the state file ${path}; is another daemon using this data root?`, {
        cause: error,
      });
    }
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known) return known;
    const statement = this.#connection.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  all(sql: string, ...parameters: SqlValue[]): SqlRow[] {
    return this.#prepare(sql).all(...parameters);
  }

  get(sql: string, ...parameters: SqlValue[]): SqlRow | undefined {
    return this.#prepare(sql).get(...parameters);
  }

  run(sql: string, ...parameters: SqlValue[]): void {
    this.#prepare(sql).run(...parameters);
  }

  /** All of `body`, or nothing of it. Synchronous by design: no other request runs in between. */
  transaction<T>(body: () => T): T {
    this.#connection.exec('BEGIN IMMEDIATE');
    try {
      const result = body();
      this.#connection.exec('COMMIT');
      return result;
    } catch (error) {
      this.#connection.exec('ROLLBACK');
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }
}

export type SqlValue = string | number | bigint | null | Uint8Array;
export type SqlRow = Record<string, SqlValue>;
