import type { EngineEvent } from '../../engine/engine.ts';

/**
 * One line of `/events`. `status`, `id` and `from` are legacy, but served up to API 1.51: CLIs up to 24 panic without them
 * (moby daemon/server/router/system/system_routes.go). Nanoseconds pass the range of a JavaScript number, so they are set as text.
 */
export function encodeEvent(event: EngineEvent): string {
  const isLegacyKind = event.type === 'container' || event.type === 'image';
  const legacy = isLegacyKind ? { status: event.action, id: event.actorId } : {};
  const from = event.type === 'container' && event.attributes['image'] ? { from: event.attributes['image'] } : {};
  const body = {
    ...legacy,
    ...from,
    Type: event.type,
    Action: event.action,
    Actor: { ID: event.actorId, Attributes: event.attributes },
    scope: 'local',
    time: Number(event.timeNs / 1_000_000_000n),
  };
  return `${JSON.stringify(body).slice(0, -1)},"timeNano":${event.timeNs}}\n`;
}
