import { formatSubnet, parseSubnet } from '../core/address-allocation.ts';
import { EngineError } from '../core/errors.ts';

/** The subnets of prefix length `size` that a pool is cut into. */
export function subnetsOfPool(pool: { base: string; size: number }): string[] {
  const whole = parseSubnet(pool.base);
  if (pool.size < whole.prefixLength) {
    throw new EngineError(
      'invalid-argument',
      `address pool ${pool.base}: subnets of size ${pool.size} are larger than the pool`,
    );
  }
  const count = 2 ** (pool.size - whole.prefixLength);
  const step = 2 ** (32 - pool.size);
  return Array.from({ length: Math.min(count, 4096) }, (_, index) =>
    formatSubnet({ base: whole.base + index * step, prefixLength: pool.size }),
  );
}
