import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { LineOutput } from '../../src/line-output.ts'
import { track } from '../support/children.ts'
import { pipe } from '../support/pipe.ts'

/** Reads until `settled`. */
async function readAll (read: () => Buffer, settled: Promise<unknown>): Promise<string> {
  let done = false
  settled.then(() => { done = true }, () => { done = true })
  const parts: Buffer[] = []
  const next = async (): Promise<void> => {
    parts.push(read())
    await sleep(1)
    if (!done) await next()
  }
  await next()
  for (let part = read(); part.length > 0; part = read()) parts.push(part)
  return Buffer.concat(parts).toString()
}

t.test('lines arrive whole and in order, whatever is in them and however long they are', async t => {
  const { writer, read } = pipe(t)
  const out = new LineOutput(writer, { shared: false })
  const lines = Array.from({ length: 3_000 }, (_, n) => `${n} ${'aé漢😀'.repeat(n % 97)}\n`)
  lines[1_000] = `${'😀漢'.repeat(40_000)}\n`
  for (const line of lines) t.ok(out.write(line))
  t.equal(await readAll(read, out.written()), lines.join(''))
})

t.test('a line counts as written when it is, not before', async t => {
  const { writer, read } = pipe(t)
  const out = new LineOutput(writer, { shared: false })
  await out.written()
  let written = false
  for (let n = 0; n < 100; n++) out.write(`${'x'.repeat(999)}\n`)
  const all = out.written().then(() => { written = true })
  await sleep(100)
  t.notOk(written, 'the pipe holds 64 KiB')
  t.equal((await readAll(read, all)).length, 100_000)
  t.ok(written)
})

t.test('a reader that does not read bounds what waits; what was taken arrives', async t => {
  const { writer, read } = pipe(t)
  const out = new LineOutput(writer, { shared: false, mostWaiting: 1 << 20 })
  const line = `${'x'.repeat(999)}\n`
  let taken = 0
  while (out.write(line)) taken++
  t.equal(taken, 1_048)
  const text = await readAll(read, out.written())
  t.equal(text.length, taken * 1_000)
  t.ok(out.write('again\n'), 'and then it takes lines again')
  t.equal(await readAll(read, out.written()), 'again\n')
})

t.test('without a reader nothing is taken, and who waits is told', async t => {
  const { reader, writer } = pipe(t)
  const out = new LineOutput(writer, { shared: false })
  closeSync(reader)
  t.ok(out.write('lost\n'))
  await t.rejects(out.written(), { code: 'EPIPE' })
  t.notOk(out.write('refused\n'))
  await t.rejects(out.written(), { code: 'EPIPE' })
  out.flushSync()
})

t.test('flushSync writes what waits, after what is under way', async t => {
  const { writer, read } = pipe(t)
  const out = new LineOutput(writer, { shared: false })
  out.write('one\n')
  out.write('two\n')
  const written = out.written()
  out.flushSync()
  t.equal(read().toString(), 'one\ntwo\n')
  await written
  await out.written()
  out.write('three\n')
  await out.written()
  t.equal(read().toString(), 'three\n')
})

t.test('flushSync gives up on a reader that does not read', async t => {
  const { writer, read } = pipe(t)
  const out = new LineOutput(writer, { shared: false })
  out.write(`${'x'.repeat(100_000)}\n`)
  const written = out.written()
  out.flushSync()
  await t.rejects(written, { code: 'EAGAIN' })
  const length = read().length
  t.ok(length > 0 && length < 100_000, 'what the pipe could take')
})

t.test('processes that share a pipe do not cut each other\'s lines, however slow its reader is', async t => {
  const { writer, read } = pipe(t)
  const count = 3_000
  const program = fileURLToPath(new URL('../support/line-writer.mjs', import.meta.url))
  const children = ['a', 'b', 'c'].map(name => spawn(process.execPath, [program, name, String(count)], { stdio: ['ignore', writer, 'inherit'] }))
  for (const child of children) track(child)
  const ended = Promise.all(children.map(async child => { t.same(await once(child, 'exit'), [0, null]) }))
  const text = await readAll(() => read(30_000), ended)
  const next: Record<string, number> = {}
  for (const line of text.split('\n').slice(0, -1)) {
    const { writer, n }: { writer: string, n: number } = JSON.parse(line)
    if (n !== (next[writer] ?? 0)) t.fail(`line ${n} of ${writer} came out of turn`)
    next[writer] = n + 1
  }
  t.same(next, { a: count, b: count, c: count })
})

t.test('to a file', async t => {
  const path = join(mkdtempSync(join(tmpdir(), 'viewing-lines-')), 'file')
  const file = openSync(path, 'a')
  t.teardown(() => { closeSync(file) })
  t.ok(fstatSync(file).isFile())
  const out = new LineOutput(file, { shared: true })
  const lines = Array.from({ length: 5_000 }, (_, n) => `line ${n}\n`)
  for (const line of lines) out.write(line)
  await out.written()
  t.equal(readFileSync(path, 'utf8'), lines.join(''))
})
