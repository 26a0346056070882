import type { EndedRecord, SessionRecord } from '../../redis/record.ts'
import type { SessionResource, SlotResource } from '../../schemas.ts'

/** The wire form of a session that lives. */
export function toSessionResource (session: SessionRecord): SessionResource {
  return {
    session_id: session.sessionId,
    user_id: session.userId,
    profile_id: session.profileId,
    content_id: session.contentId,
    device_id: session.deviceId,
    status: session.status,
    started_at: session.startedAt,
    last_heartbeat: session.lastHeartbeat,
    position: session.position
  }
}

/** The wire form of a session that has ended. */
export function toEndedResource (ended: EndedRecord): SessionResource {
  return {
    ...toSessionResource(ended.session),
    status: 'stopped',
    end_reason: ended.endReason,
    ended_at: new Date(ended.endedAtMs).toISOString()
  }
}

/** A slot's holder as the user's other devices see it. */
export function toSlotResource (session: SessionRecord, timeoutMs: number): SlotResource {
  return {
    session_id: session.sessionId,
    device_id: session.deviceId,
    content_id: session.contentId,
    profile_id: session.profileId,
    status: session.status,
    started_at: session.startedAt,
    last_heartbeat: session.lastHeartbeat,
    expires_at: new Date(session.beatMs + timeoutMs).toISOString()
  }
}
