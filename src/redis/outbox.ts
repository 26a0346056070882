import type { EventType } from '../schemas.ts'
import { type EndedRecord, parseEnded, type SessionRecord } from './record.ts'
import { slotOf, tagOfSlot } from './keys.ts'

export type EventReason = 'client' | 'expired' | 'superseded' | 'terminated'

/** An event as it stands in the outbox, written by the script that changed the state. */
export interface OutboxEntry {
  /** Slot of the stream `outbox:{tag}` it lies in. */
  slot: number
  entryId: string
  type: EventType
  seq: number
  /** Redis time of the change, ms. */
  atMs: number
  /** On terminal events only. */
  reason: EventReason | undefined
  /** JSON text of the client's metadata, or ''. */
  metadata: string
  session: SessionRecord
}

/** How a session ends: the one table. Cause → event, its `metadata.reason`, and the `end_reason` that 410 answers give. */
export const ENDINGS = {
  stop: { type: 'playback.stopped', reason: 'client', endReason: 'stopped' },
  complete: { type: 'playback.completed', reason: 'client', endReason: 'completed' },
  silence: { type: 'playback.stopped', reason: 'expired', endReason: 'expired' },
  takeOver: { type: 'playback.stopped', reason: 'superseded', endReason: 'superseded' },
  termination: { type: 'playback.stopped', reason: 'terminated', endReason: 'terminated' }
} as const satisfies Record<string, { type: EventType, reason: EventReason, endReason: EndedRecord['endReason'] }>
export type EndCause = keyof typeof ENDINGS

/** The terminal event of a session that a script has just ended, from the text kept under `ended:{id}`. */
export function terminalEntry (entryId: string, endedText: string, metadata = ''): OutboxEntry & { ended: EndedRecord } {
  const ended = parseEnded(endedText)
  const ending = Object.values(ENDINGS).find(({ endReason }) => endReason === ended.endReason) ?? ENDINGS.stop
  return {
    slot: slotOf(ended.session.sessionId),
    entryId,
    type: ending.type,
    seq: ended.session.seq,
    atMs: ended.endedAtMs,
    reason: ending.reason,
    metadata,
    session: ended.session,
    ended
  }
}

/** The keys of a session's user-level and slot-level state, in the order in which the scripts declare them. */
export function tagOfSession (sessionId: string): string {
  return tagOfSlot(slotOf(sessionId))
}
