import { createHmac, randomUUID } from 'node:crypto'

/**
 * The only place that builds Redis keys. The braces are literal: they are Redis hash tags, and every key of one user,
 * his sessions' keys included, lies in one Redis Cluster slot because session ids are aligned to it (see `alignedId`).
 * Keyslot function: Redis Cluster specification, "Key distribution model" (CRC16/XMODEM modulo 16384).
 */
export const SLOTS = 16_384

export const keys = {
  session: (sessionId: string) => `session:{${sessionId}}`,
  ended: (sessionId: string) => `ended:{${sessionId}}`,
  concurrency: (userId: string) => `concurrency:{${userId}}`,
  userSessions: (userId: string) => `user:{${userId}}:sessions`,
  due: (tag: string) => `due:{${tag}}`,
  outbox: (tag: string) => `outbox:{${tag}}`,
  lost: (tag: string) => `lost:{${tag}}`,
  rate: (userId: string) => `rate:{${userId}}`,
  pulse: (tag: string) => `pulse:{${tag}}`
} as const

const CRC_TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021
  return crc
})

/** CRC16/XMODEM of an ASCII string. Ids are ASCII by schema. */
function crc16 (text: string): number {
  let crc = 0
  for (let i = 0; i < text.length; i++) {
    crc = ((crc << 8) & 0xff00) ^ (CRC_TABLE[(crc >> 8) ^ text.charCodeAt(i)] ?? 0)
  }
  return crc
}

/** The slot (0..16383) of a key whose hash tag is `tag`. */
export function slotOf (tag: string): number {
  return crc16(tag) % SLOTS
}

/**
 * Hex digits of a UUID that may be set freely to steer its slot. Each carries three bits (digits 0-7).
 * CRC16 is linear over GF(2), so the digits add independent patterns to it; these five reach all 16,384 slots,
 * five adjacent ones only half of them.
 */
const STEERED_DIGITS = [24, 27, 30, 33, 35] as const

function withSteering (uuid: string, bits: number): string {
  const [a, b, c, d, e] = STEERED_DIGITS
  return uuid.slice(0, a) + (bits & 7) +
    uuid.slice(a + 1, b) + ((bits >> 3) & 7) +
    uuid.slice(b + 1, c) + ((bits >> 6) & 7) +
    uuid.slice(c + 1, d) + ((bits >> 9) & 7) +
    uuid.slice(d + 1, e) + ((bits >> 12) & 7)
}

/** For each difference of slots, the steering bits that make it. */
const STEERING = (() => {
  const blank = '0'.repeat(36)
  const origin = crc16(blank)
  const table = new Uint16Array(SLOTS)
  for (let bits = 0; bits < 1 << 15; bits++) table[(crc16(withSteering(blank, bits)) ^ origin) % SLOTS] = bits
  return table
})()

/** `uuid` with five hex digits changed so that its slot is `slot`. About 103 of a v4 UUID's 122 random bits remain. */
export function alignUuid (uuid: string, slot: number): string {
  return withSteering(uuid, STEERING[slotOf(withSteering(uuid, 0)) ^ slot] ?? 0)
}

/** A new random session id in the slot of its user. */
export function randomSessionId (userId: string): string {
  return alignUuid(randomUUID(), slotOf(userId))
}

/**
 * The session id of a start that carries an Idempotency-Key: the same for every retry on every instance, in the slot of
 * its user, and unpredictable without the secret.
 */
export function keyedSessionId (secret: string, userId: string, idempotencyKey: string): string {
  const hex = createHmac('sha256', secret).update(`${userId}\0${idempotencyKey}`).digest('hex')
  const variant = ((parseInt(hex.charAt(16), 16) & 3) | 8).toString(16)
  const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`
  return alignUuid(uuid, slotOf(userId))
}

/** For each slot the first string, shortest first, of base-36 digits that hashes to it: at most 4 characters. */
const TAGS: readonly string[] = (() => {
  const tags = new Array<string>(SLOTS).fill('')
  let missing = SLOTS
  for (let length = 1; missing > 0; length++) {
    for (let n = 0; n < 36 ** length && missing > 0; n++) {
      const tag = n.toString(36).padStart(length, '0')
      const slot = slotOf(tag)
      if (tags[slot] === '') {
        tags[slot] = tag
        missing--
      }
    }
  }
  return tags
})()

/** The tag of the per-slot keys (`due`, `outbox`) of a slot; the same on every instance. */
export function tagOfSlot (slot: number): string {
  return TAGS[slot] ?? ''
}
