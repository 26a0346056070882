import { LineOutput } from '../../src/line-output.ts'

/** Writes `argv[3]` lines as the process `argv[2]`, in bursts, to a standard output that others write to as well. */
const [writer, count] = [process.argv[2], Number(process.argv[3])]
const out = new LineOutput(1, { shared: true })
for (let n = 0; n < count;) {
  for (let i = 0; i < 400 && n < count; i++) out.write(`${JSON.stringify({ writer, n: n++, text: 'ä'.repeat(n % 200) })}\n`)
  await out.written()
}
