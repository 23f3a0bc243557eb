import { Readable } from 'node:stream';
import { EngineError } from '../../src/core/errors.ts';
import type { GuestConsole, GuestService } from '../../src/engine/guest-service.ts';
import type { GuestAllocationResult, GuestExecResult, GuestImageView, GuestView } from '../../src/wire/guest.ts';

const none = (name: string): EngineError => new EngineError('not-found', `no guest ${name}`);

/** A host without guests: enough for tests of the wire, which is not theirs. */
export class FakeGuests implements GuestService {
  launch = ({ image }: { image: string }): Promise<GuestView> => Promise.reject(none(image));
  list = (): GuestView[] => [];
  inspect = (name: string): GuestView => {
    throw none(name);
  };
  start = (name: string): Promise<GuestView> => Promise.reject(none(name));
  stop = (name: string): Promise<GuestView> => Promise.reject(none(name));
  delete = (name: string): Promise<void> => Promise.reject(none(name));
  allocate = (name: string): Promise<GuestAllocationResult> => Promise.reject(none(name));
  exec = (name: string): Promise<GuestExecResult> => Promise.reject(none(name));
  restart = (name: string): Promise<GuestView> => Promise.reject(none(name));
  readFile = (): Readable => Readable.from([]);
  writeFile = (name: string): Promise<void> => Promise.reject(none(name));
  consoleLog = (): Promise<Readable> => Promise.resolve(Readable.from([]));
  attachConsole = (name: string): Promise<GuestConsole> => Promise.reject(none(name));
  listImages = (): Promise<GuestImageView[]> => Promise.resolve([]);
  importImage = (name: string): Promise<GuestImageView> => Promise.reject(none(name));
  removeImage = (name: string): Promise<void> => Promise.reject(none(name));
}
