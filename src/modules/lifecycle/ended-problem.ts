import { ProblemError } from '../../problems.ts'
import type { EndedRecord, EndReason } from '../../redis/record.ts'

/** Whether a player may start again by itself. Not after a take-over or sign-out: the viewers' devices would fight for ever. */
const MAY_RETRY: Record<EndReason, boolean> = { stopped: false, completed: false, expired: true, superseded: false, terminated: false }

const DETAIL: Record<EndReason, string> = {
  stopped: 'The session was stopped by its client.',
  completed: 'The session was played to its end.',
  expired: 'The session was silent for too long; start a new one.',
  superseded: 'Another device took over the slot of this session.',
  terminated: 'The session was ended for all of the user\'s devices, or by an operator.'
}

/** 410: a session that has ended stays ended, and its client learns how and by whom. */
export function endedProblem (ended: EndedRecord): ProblemError {
  return new ProblemError('session-ended', DETAIL[ended.endReason], {
    extensions: {
      reason: ended.endReason,
      ended_at: new Date(ended.endedAtMs).toISOString(),
      ...(ended.endedBy === undefined ? {} : { ended_by: ended.endedBy }),
      may_retry: MAY_RETRY[ended.endReason]
    }
  })
}

/** 404: absent and foreign sessions look the same. */
export function notFoundProblem (): ProblemError {
  return new ProblemError('session-not-found', 'No session of this id that the credential may use.')
}
