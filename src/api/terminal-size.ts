import { EngineError } from '../core/errors.ts';
import type { TerminalSize } from '../engine/engine.ts';
import type { ApiRequest } from './api-request.ts';

/** Docker's uint32. */
const LARGEST_CELLS = 0xffff_ffff;

/** The parameters `h` and `w`. */
export function terminalSize(request: ApiRequest): TerminalSize {
  return { height: cells(request, 'h', 'height'), width: cells(request, 'w', 'width') };
}

function cells(request: ApiRequest, parameter: string, meaning: string): number {
  const text = request.query.get(parameter) ?? '';
  const value = Number(text);
  if (!/^\d{1,10}$/.test(text) || value > LARGEST_CELLS) {
    throw new EngineError(
      'invalid-argument',
      `invalid resize ${meaning} ${JSON.stringify(text)}: must be a number of character cells`,
    );
  }
  return value;
}
