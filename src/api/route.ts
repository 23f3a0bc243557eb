import type { ApiContext } from './api-context.ts';
import type { ApiReply } from './api-reply.ts';
import type { ApiRequest } from './api-request.ts';
import type { HijackedStreams } from './hijack.ts';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'OPTIONS';

/** An endpoint. `{name}` in the path takes one or more characters, slashes too (`/images/localhost:5000/a/b/json`), as in Docker. */
export type Route = OrdinaryRoute | HijackRoute;

export interface OrdinaryRoute {
  readonly method: Method;
  readonly path: string;
  readonly handle: (request: ApiRequest, reply: ApiReply, context: ApiContext) => Promise<void> | void;
}

/**
 * An endpoint whose connection becomes a two-way stream of bytes. Nothing is on the wire yet when `hijack` throws; when it resolves with
 * undefined the request is done, and there is nothing to join: 200 without a body.
 */
export interface HijackRoute {
  readonly method: Method;
  readonly path: string;
  readonly hijack: (request: ApiRequest, context: ApiContext) => Promise<HijackedStreams | undefined>;
}

export interface RouteMatch {
  readonly route: Route;
  readonly parameters: Readonly<Record<string, string>>;
  /** As the client wrote it in the path; undefined where it wrote none. */
  readonly requestedVersion: string | undefined;
}

export interface RouteTable {
  /** `path` is percent-decoded already. The first route that fits wins. */
  match(method: string, path: string): RouteMatch | undefined;
}

const VERSION_PREFIX = /^\/v([0-9.]+)(\/.*)$/s;

export function compileRoutes(routes: readonly Route[]): RouteTable {
  const byMethod = new Map<string, { route: Route; pattern: RegExp }[]>();
  for (const route of routes) {
    const list = byMethod.get(route.method) ?? [];
    list.push({ route, pattern: compilePath(route.path) });
    byMethod.set(route.method, list);
  }
  return {
    match(method, path) {
      const versioned = VERSION_PREFIX.exec(path);
      const plainPath = versioned?.[2] ?? path;
      for (const { route, pattern } of byMethod.get(method) ?? []) {
        const found = pattern.exec(plainPath);
        if (found !== null) return { route, parameters: { ...found.groups }, requestedVersion: versioned?.[1] };
      }
      return undefined;
    },
  };
}

function compilePath(path: string): RegExp {
  const source = path.replaceAll(/[.*+?^$()|[\]\\]/g, '\\$&').replaceAll(/\{(\w+)\}/g, '(?<$1>.+)');
  return new RegExp(`^${source}$`, 's');
}
