/** Longest head that is read here, bytes; Node takes 16 KiB. */
export const MAX_HEAD_BYTES = 8 * 1024

export interface RequestHead {
  method: string
  url: string
  /** Names in lower case, none twice. */
  headers: Record<string, string>
  /** Where in the bytes the body begins, and how long it is. */
  bodyAt: number
  bodyLength: number
}

const HEAD = /^(?:GET|POST|DELETE) \/[!"$-~]* HTTP\/1\.1\r\n(?:[A-Za-z0-9-]+: ?(?:[!-~][ -~]*)?\r\n)+\r\n/y
const VERSION = ' HTTP/1.1\r\n'
const END = '\r\n\r\n'
/** What the beginning of a plain head can be made of. */
const PLAIN = /^(?:[ -~]|\r\n)*\r?$/

/**
 * Reads the head of a plain request: the one form in which nearly every client library writes HTTP/1.1 (RFC 9112). A name twice, a folded line,
 * a byte outside ASCII, a coding, an expectation, another version: whatever could be read in two ways is not plain, and not judged here.
 * @returns `partial`: plain so far, and not all here; undefined: not plain, or a body beyond `maxBodyBytes`.
 */
export function readHead (bytes: Buffer, prefix: string, maxBodyBytes: number): RequestHead | 'partial' | undefined {
  const text = bytes.toString('latin1', 0, Math.min(bytes.length, MAX_HEAD_BYTES))
  HEAD.lastIndex = 0
  if (!HEAD.test(text)) return bytes.length < MAX_HEAD_BYTES && !text.includes(END) && isPlainStart(text, prefix) ? 'partial' : undefined
  const bodyAt = HEAD.lastIndex
  // The expression has looked at every byte; from here on it is only taken apart.
  const [target, first] = [text.indexOf(' ') + 1, text.indexOf(VERSION) + VERSION.length]
  const [method, url] = [text.slice(0, target - 1), text.slice(target, first - VERSION.length)]
  const headers = url.startsWith(prefix) ? readFields(text, first, bodyAt - 2) : undefined
  const bodyLength = headers === undefined ? undefined : plainBodyLength(method, headers, maxBodyBytes)
  return headers === undefined || bodyLength === undefined ? undefined : { method, url, headers, bodyAt, bodyLength }
}

function isPlainStart (text: string, prefix: string): boolean {
  return PLAIN.test(text) && ['GET', 'POST', 'DELETE'].map(method => `${method} ${prefix}`).some(start => text.startsWith(start) || start.startsWith(text))
}

/** undefined: a name twice, or space after a value. */
function readFields (text: string, from: number, to: number): Record<string, string> | undefined {
  const headers: Record<string, string> = {}
  for (let at = from; at < to;) {
    const colon = text.indexOf(':', at)
    const end = text.indexOf('\r\n', colon)
    const name = text.slice(at, colon).toLowerCase()
    const value = text.slice(text[colon + 1] === ' ' ? colon + 2 : colon + 1, end)
    if (headers[name] !== undefined || value.endsWith(' ')) return undefined
    headers[name] = value
    at = end + 2
  }
  return headers
}

/** undefined: where the message ends, or what becomes of the connection, takes more than a plain request says. */
function plainBodyLength (method: string, headers: Record<string, string>, most: number): number | undefined {
  const { host, connection, 'content-length': length, 'transfer-encoding': coding, expect, upgrade } = headers
  if (host === undefined || coding !== undefined || expect !== undefined || upgrade !== undefined) return undefined
  if (connection !== undefined && connection !== 'keep-alive' && connection.toLowerCase() !== 'keep-alive') return undefined
  if (length === undefined) return 0
  if (method !== 'POST' || !/^\d{1,9}$/.test(length)) return undefined
  return Number(length) > most ? undefined : Number(length)
}
