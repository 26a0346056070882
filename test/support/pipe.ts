import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** The two ends of a pipe, as descriptors. */
export interface Pipe {
  reader: number
  writer: number
  /** What is in it, up to `most` bytes; nothing when it is empty. */
  read: (most?: number) => Buffer
}

/** A pipe with nobody else at its ends; neither of them blocks. The writing end is closed with the test. */
export function pipe (t: Test): Pipe {
  const path = join(mkdtempSync(join(tmpdir(), 'viewing-pipe-')), 'pipe')
  execFileSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
  t.teardown(() => { closeSync(writer) })
  const bytes = Buffer.alloc(1 << 20)
  const read = (most = bytes.length): Buffer => {
    try {
      return Buffer.from(bytes.subarray(0, readSync(reader, bytes, 0, most, null)))
    } catch {
      return Buffer.alloc(0)
    }
  }
  return { reader, writer, read }
}
