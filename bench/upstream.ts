import { createServer } from 'node:http'

/** Identity and content service as cheap as Node can be one: they share the machine with what is measured. */
const BODIES = { identity: '{"entitled":true,"max_streams":5}', content: '{"available":true}' }
const server = createServer((request, response) => {
  const body = request.url?.startsWith('/api/entitlement') === true ? BODIES.identity : BODIES.content
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address !== 'string') process.stdout.write(`${JSON.stringify({ msg: 'listening', address: `http://127.0.0.1:${address.port}` })}\n`)
})
