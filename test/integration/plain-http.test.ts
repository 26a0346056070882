import t from 'tap'
import { readHead } from '../../src/plugins/plain-http/request-head.ts'
import { exchange, get, LIMIT, PLAIN_BYTES, post, PREFIX, startServer, textOf } from '../support/plain-server.ts'

t.setTimeout(120_000)

/**
 * An answer without what differs from run to run, and without the headers that only the plugin adds. To a client that has said its last word the
 * plugin says that the connection ends, Node only ends it.
 */
function normalised (text: string): string[] {
  return text.split(/(?=HTTP\/1\.1 \d{3} )/).map(answer => {
    const [head = '', ...body] = answer.split('\r\n\r\n')
    const [status = '', ...fields] = head.split('\r\n')
    const kept = fields.map(field => field.replace(/^[^:]+/, name => name.toLowerCase())).filter(field => !/^(date|connection|keep-alive|x-content-type-options|content-security-policy|cache-control): /.test(field))
    return [status, ...kept.toSorted(), body.join('\r\n\r\n')].join('\n')
  })
}

/** The plain requests at the beginning, and what comes after them. */
function messagesOf (text: string): string[] {
  const bytes = Buffer.from(text, 'latin1')
  const head = readHead(bytes, PREFIX, PLAIN_BYTES)
  const end = typeof head === 'object' ? head.bodyAt + head.bodyLength : bytes.length
  return end >= bytes.length ? [text] : [text.slice(0, end), ...messagesOf(text.slice(end))]
}

const bytewise = (text: string): string[] => [...text]

/** How a request is sent, and whether it is to be read by the plugin. */
const CASES: Array<[name: string, plain: boolean, pieces: string[]]> = [
  ['a small body', true, [post('/api/echo', '{"a":1}')]],
  ['no body', true, [post('/api/echo', '', '')]],
  ['an empty JSON body', true, [post('/api/echo', '')]],
  ['a body without a length', true, ['POST /api/echo HTTP/1.1\r\nhost: x\r\n\r\n']],
  ['UTF-8', true, [post('/api/echo', '{"a":"\u00fc\u20ac\ud83d\ude00"}')]],
  ['bytes that are no UTF-8', true, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"a":"\xff"}']],
  ['no JSON', true, [post('/api/echo', '{"a":')]],
  ['a poisoned prototype', true, [post('/api/echo', '{"__proto__":{"a":1}}')]],
  ['plain text', true, [post('/api/echo', 'hello', 'Content-Type: text/plain\r\n')]],
  ['a media type nobody reads', true, [post('/api/echo', 'hello', 'content-type: application/xml\r\n')]],
  ['byte by byte', true, bytewise(post('/api/echo', '{"a":"b"}'))],
  ['head and body apart', true, [post('/api/echo', '{"a":"b"}').slice(0, -9), '{"a":"b"}']],
  ['two heads and a half', true, [post('/api/echo', '1') + post('/api/late', '2') + post('/api/echo', '3').slice(0, 20), post('/api/echo', '3').slice(20)]],
  ['ten in one packet', true, [Array.from({ length: 10 }, (_, n) => post(n % 3 === 0 ? '/api/late' : '/api/echo', `{"n":${n}}`)).join('')]],
  ['more while one is answered', true, [post('/api/late', '1'), post('/api/echo', '2'), get('/api/echo'), post('/api/late', '3')]],
  ['GET, query and escapes', true, [get('/api/echo?a=1&b=%20c&a=2')]],
  ['DELETE', true, ['DELETE /api/echo HTTP/1.1\r\nhost: x\r\n\r\n']],
  ['names in other cases, no space, an empty value', true, [get('/api/echo', 'X-One:1\r\nx-TWO: 2 2\r\nX-Empty:\r\nX-Empty2: \r\n')]],
  ['keep-alive', true, [get('/api/echo', 'Connection: Keep-Alive\r\n'), get('/api/echo')]],
  ['an answer of bytes, two cookies', true, [get('/api/bytes')]],
  ['an answer without a body', true, [get('/api/none') + get('/api/text')]],
  ['an unknown route', true, [get('/api/nowhere') + get('/api/echo')]],
  ['a bad escape in the path', true, [get('/api/%zz') + get('/api/echo')]],
  ['an answer that ends the connection', true, [get('/api/leave') + get('/api/echo')]],
  ['a body of the limit', true, [post('/api/echo', textOf(PLAIN_BYTES))]],
  ['a body above the limit of the plugin', false, [post('/api/echo', textOf(PLAIN_BYTES + 1))]],
  ['a body above the limit of the route', false, [post('/api/echo', textOf(LIMIT + 1))]],
  ['a body that is announced too long', false, [`POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${LIMIT + 1}\r\n\r\n`]],
  ['half a body', false, [post('/api/echo', '{"a":1}').slice(0, -2)]],
  ['half a head', false, [post('/api/echo', '{"a":1}').slice(0, 40)]],
  ['nothing', false, ['']],
  ['another path', false, [get('/other/echo') + get('/api/echo')]],
  ['a whole address', false, [get('http://x/api/echo')]],
  ['HEAD, PUT, OPTIONS', false, ['HEAD /api/echo HTTP/1.1\r\nhost: x\r\n\r\nPUT /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\nOPTIONS /api/echo HTTP/1.1\r\nhost: x\r\n\r\n']],
  ['chunks', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"a\r\n', '4\r\n":1}\r\n0\r\n\r\n']],
  ['chunks and a length', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n']],
  ['two lengths', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n12345']],
  ['lengths that are none', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: +4\r\n\r\n1234']],
  ['a length in hexadecimal', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0x4\r\n\r\n1234']],
  ['a length of two', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4, 4\r\n\r\n1234']],
  ['an expectation', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n', '1']],
  ['an upgrade', false, [get('/api/echo', 'connection: upgrade\r\nupgrade: h2c\r\n')]],
  ['no host', false, ['GET /api/echo HTTP/1.1\r\n\r\n']],
  ['no fields', false, ['GET /api/echo HTTP/1.1\r\n\r\n']],
  ['two hosts', false, ['GET /api/echo HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n']],
  ['a field twice', false, [get('/api/echo', 'x-a: 1\r\nX-A: 2\r\nauthorization: a\r\nAuthorization: b\r\n')]],
  ['a folded field', false, [get('/api/echo', 'x-a: 1\r\n 2\r\n')]],
  ['a space before the colon', false, [get('/api/echo', 'x-a : 1\r\n')]],
  ['space around a value', false, [get('/api/echo', 'x-a: \t 1 \t \r\n')]],
  ['a field without a name', false, [get('/api/echo', ': 1\r\n')]],
  ['a field that has a name of objects', false, [get('/api/echo', 'constructor: 1\r\n')]],
  ['a field outside ASCII', false, [get('/api/echo', 'x-a: \xfc\r\n')]],
  ['a control character', false, [get('/api/echo', 'x-a: a\x01b\r\n')]],
  ['LF alone', false, ['GET /api/echo HTTP/1.1\nhost: x\n\n']],
  ['CR alone', false, [get('/api/echo', 'x-a: a\rb\r\n')]],
  ['an empty line before', false, [`\r\n${get('/api/echo')}`]],
  ['HTTP/1.0', false, ['GET /api/echo HTTP/1.0\r\nhost: x\r\n\r\n']],
  ['HTTP/1.0 with keep-alive', false, ['GET /api/echo HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n' + get('/api/echo')]],
  ['HTTP/2', false, ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']],
  ['TLS', false, ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc']],
  ['a close', false, [get('/api/echo', 'connection: close\r\n') + get('/api/echo')]],
  ['a body with GET', false, ['GET /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1' + get('/api/echo')]],
  ['a body with DELETE', false, ['DELETE /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1' + get('/api/echo')]],
  ['a head of 10 KiB', false, [get('/api/echo', `x-a: ${'a'.repeat(10_000)}\r\n`)]],
  ['a head of 20 KiB', false, [get('/api/echo', `x-a: ${'a'.repeat(20_000)}\r\n`)]]
]

t.test('a plain request is answered as Node answers it, every other one by Node', async t => {
  const [node, own] = [await startServer(t, false), await startServer(t, true)]
  for (const [name, plain, pieces] of CASES) {
    const before = own.plain()
    const [expected, found] = await Promise.all([exchange(node.port, pieces), exchange(own.port, pieces)])
    t.same(normalised(found), normalised(expected), name)
    t.equal(own.plain() > before, plain, `${name}: read by ${plain ? 'the plugin' : 'Node'}`)
  }
  t.equal(node.plain(), 0)

  t.test('after a plain one', async t => {
    for (const [name, , pieces] of CASES) {
      const [expected, found] = await Promise.all([exchange(node.port, pieces, post('/api/echo', '0')), exchange(own.port, pieces, post('/api/echo', '0'))])
      t.same(normalised(found), normalised(expected), name)
    }
  })

  t.test('what cannot be read comes after what is being answered', async t => {
    const answers = normalised(await exchange(own.port, [post('/api/late', '0'), '\0\r\n\r\n']))
    t.same(answers.map(answer => answer.slice(0, 12)), ['HTTP/1.1 200', 'HTTP/1.1 400'])
  })

  t.test('whatever becomes of the bytes', async t => {
    let seed = 20_261_125
    const random = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below
    const noise = ['\r', '\n', '\r\n', ' ', '\t', ':', '\0', '\x7f', '\xe4', '#', '%', '"', 'a', '0', 'x-a: 1\r\n', 'Host: y\r\n', 'content-length: 3\r\n', 'transfer-encoding: chunked\r\n', 'Connection: close\r\n', '\r\n\r\n', get('/api/echo')]
    const originals = CASES.filter(([, plain]) => plain).map(([, , pieces]) => pieces.join('')).filter(text => text.length < 1_000)
    for (let round = 0; round < 120; round++) {
      await Promise.all(Array.from({ length: 25 }, async () => {
        let text = originals[random(originals.length)] ?? ''
        for (let changes = 1 + random(2); changes > 0; changes--) {
          const at = random(text.length)
          text = text.slice(0, at) + (noise[random(noise.length)] ?? '') + text.slice(at + random(3))
        }
        const [first = '', ...others] = messagesOf(text)
        const cut = random(first.length)
        // One by one: what Node cannot read it refuses before it has answered what came before, and loses that answer.
        for (const pieces of [random(2) === 0 ? [first] : [first.slice(0, cut), first.slice(cut)], ...others.map(other => [other])]) {
          const [expected, found] = await Promise.all([exchange(node.port, pieces), exchange(own.port, pieces)])
          if (JSON.stringify(normalised(found)) !== JSON.stringify(normalised(expected))) t.same(normalised(found), normalised(expected), JSON.stringify(pieces))
        }
      }))
    }
    t.ok(own.plain() > 500, `of 3,000 mutants ${own.plain()} requests were plain`)
  })
})
