import type { PlaybackClaims } from '../../schemas.ts'

/** Who calls, as far as it was proven. */
export type Principal =
  /** `AUTH_MODE=none`: nobody proved anything; may name any user. */
  | { kind: 'anyone' }
  /** An authenticated gateway that vouches for whichever user the request names. */
  | { kind: 'gateway' }
  /** A proven user: subject of an access token, or `X-User-Id` of a gateway, which then also vouches for the region. */
  | { kind: 'user', userId: string, byGateway?: true }
  /** May act for anyone: scope `playback:admin`. */
  | { kind: 'admin' }
  /** Holder of a playback token: may use that one session and nothing else. */
  | { kind: 'session', claims: PlaybackClaims }

/** Whether the caller may start for this user, see his slots, or use his sessions without their tokens. */
export function mayActFor (principal: Principal, userId: string): boolean {
  switch (principal.kind) {
    case 'admin':
    case 'gateway':
    case 'anyone': return true
    case 'user': return principal.userId === userId
    case 'session': return false
  }
}
