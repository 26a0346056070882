import { isoTime } from '../../redis/clock.ts'
import type { OutboxEntry } from '../../redis/outbox.ts'
import type { SessionRecord } from '../../redis/record.ts'
import { type Metadata, type PlaybackEvent, SCHEMA_VERSION } from '../../schemas.ts'

/** Identity of the session a heartbeat belongs to. */
export type EventSubject = Pick<SessionRecord, 'sessionId' | 'userId' | 'profileId' | 'contentId' | 'deviceId'>

/** What the player says with a heartbeat. */
export interface BeatContent { position: number, metadata?: Metadata | undefined }

const subjectFields = (subject: EventSubject) => ({
  session_id: subject.sessionId,
  user_id: subject.userId,
  profile_id: subject.profileId,
  content_id: subject.contentId,
  device_id: subject.deviceId
})

/**
 * The event of an outbox entry. Made of nothing but the entry, so that whoever ships it makes the same one; consumers drop
 * repeats by `event_id`. A terminal event's id does not hold its own time: a failover may end a session a second time.
 */
export function lifecycleEvent (entry: OutboxEntry): PlaybackEvent {
  const { session, reason } = entry
  return {
    event_type: entry.type,
    ...subjectFields(session),
    timestamp: new Date(entry.atMs).toISOString(),
    metadata: { position: session.position, ...parseMetadata(entry.metadata), ...(reason === undefined ? {} : { reason }) },
    event_id: reason === undefined
      ? `${session.sessionId}:${entry.seq}:${entry.atMs}`
      : `${session.sessionId}:${Date.parse(session.startedAt)}:end`,
    seq: entry.seq,
    schema_version: SCHEMA_VERSION
  }
}

/** The event of a heartbeat; `seq` is that of the last lifecycle change. */
export function heartbeatEvent (subject: EventSubject, { seq, beatMs }: { seq: number, beatMs: number }, { position, metadata }: BeatContent): PlaybackEvent {
  return {
    event_type: 'playback.heartbeat',
    ...subjectFields(subject),
    timestamp: isoTime(beatMs),
    metadata: metadata === undefined ? { position } : { position, ...metadata },
    event_id: `${subject.sessionId}:hb:${beatMs}`,
    seq,
    schema_version: SCHEMA_VERSION
  }
}

/**
 * The event as JSON, character for character what JSON.stringify makes of it, at half its cost (0.35 µs instead of 0.74). The schema
 * leaves ids, times and numbers nothing that JSON would escape; metadata has words of the player's in it and goes through the library.
 */
export function eventJson ({ event_type: type, session_id: session, user_id: user, profile_id: profile, content_id: content, device_id: device, timestamp, metadata, event_id: id, seq, schema_version: version }: PlaybackEvent): string {
  return `{"event_type":"${type}","session_id":"${session}","user_id":"${user}","profile_id":"${profile}","content_id":"${content}","device_id":"${device}",` +
    `"timestamp":"${timestamp}","metadata":${JSON.stringify(metadata)},"event_id":"${id}","seq":${seq},"schema_version":"${version}"}`
}

function parseMetadata (text: string): Metadata {
  if (text === '') return {}
  const value: Record<string, unknown> = JSON.parse(text)
  return {
    ...(typeof value.quality === 'string' ? { quality: value.quality } : {}),
    ...(typeof value.network === 'string' ? { network: value.network } : {})
  }
}
