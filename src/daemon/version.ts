import type { ProductVersion } from '../api/api-context.ts';

/** `engine` is the dockerd whose behaviour we follow: clients refuse to work with versions that look too old. */
export const PRODUCT_VERSION: ProductVersion = {
  bulkhead: '0.1.0',
  engine: '28.5.2',
  commit: 'unknown',
  buildTime: '',
};
