import { EngineError } from '../core/errors.ts';

/**
 * The proxy to registries that the daemon's environment names, read as dockerd reads it: upper case wins, what is empty is not set, and
 * `host:port` means http. Source: golang.org/x/net/http/httpproxy
 */
export function registryProxy(environment: NodeJS.ProcessEnv): {
  proxy: string | undefined;
  noProxy: string | undefined;
} {
  const proxy = environment['HTTPS_PROXY'] || environment['https_proxy'] || undefined;
  const noProxy = environment['NO_PROXY'] || environment['no_proxy'] || undefined;
  return { proxy: proxy === undefined ? undefined : proxyUrl(proxy), noProxy };
}

function proxyUrl(text: string): string {
  const url = text.includes('://') ? text : `http://${text}`;
  if (URL.canParse(url) && ['http:', 'https:'].includes(new URL(url).protocol)) return url;
  // The text itself may hold a password.
  throw new EngineError(
    'invalid-argument',
    'the environment variable HTTPS_PROXY is not usable: write http://HOST:PORT or https://HOST:PORT',
  );
}
