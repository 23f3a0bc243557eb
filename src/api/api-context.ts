import type { Engine } from '../engine/engine.ts';

/** Where the API writes what an operator should know. Pino's order of arguments. */
export interface ApiLogger {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** What the program is, as `/version` tells it. */
export interface ProductVersion {
  /** Our own, `0.1.0`. */
  readonly bulkhead: string;
  /** Docker's engine version that we behave like, `28.5.2`: clients compare it with the least they accept. */
  readonly engine: string;
  /** Short commit hash, or `unknown`. */
  readonly commit: string;
  /** RFC 3339, or empty. */
  readonly buildTime: string;
}

/** What every handler may use. */
export interface ApiContext {
  readonly engine: Engine;
  readonly logger: ApiLogger;
  readonly version: ProductVersion;
}

/** `28.5.2+bulkhead-0.1.0`: semantic-version build metadata, so that comparisons see Docker's number. */
export function engineVersionText(version: ProductVersion): string {
  return `${version.engine}+bulkhead-${version.bulkhead}`;
}
