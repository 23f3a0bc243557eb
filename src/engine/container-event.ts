import type { ContainerRecord } from './container-record.ts';
import type { EngineEvent } from './engine.ts';

type Unstamped = Omit<EngineEvent, 'timeNs'>;

/** With Docker's attributes: the labels, the image's name and the container's. */
export function containerEvent(
  record: ContainerRecord,
  action: string,
  attributes: Readonly<Record<string, string>> = {},
): Unstamped {
  return {
    type: 'container',
    action,
    actorId: record.id,
    attributes: { ...(record.config.Labels ?? {}), image: record.imageReference, name: record.name, ...attributes },
  };
}

/** The container joins or leaves its network; undefined for one without. */
export function networkEvent(record: ContainerRecord, action: 'connect' | 'disconnect'): Unstamped | undefined {
  const network = record.sandbox?.network;
  if (!network) return undefined;
  return {
    type: 'network',
    action,
    actorId: network.networkId,
    attributes: { container: record.id, name: network.networkName, type: 'bridge' },
  };
}
