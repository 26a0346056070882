import neostandard, { plugins } from 'neostandard'

/** Dependencies point one way: server → app → routes → modules → redis, schemas → problems. */
const layer = (files, forbidden, message) => ({
  files,
  rules: { 'no-restricted-imports': ['error', { patterns: forbidden.map(group => ({ group: [group], message })) }] }
})
const MODULES = ['session', 'entitlement', 'concurrency', 'token', 'lifecycle', 'event']

export default [
  ...neostandard({ ts: true, ignores: ['dist/**', '.tap/**', 'sdk/schema.d.ts', 'node_modules/**'] }),
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': plugins['typescript-eslint'].plugin },
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: false }],
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-explicit-any': 'error',
      '@stylistic/comma-dangle': 'off'
    }
  },
  { files: ['test/**/*.ts'], rules: { '@typescript-eslint/no-floating-promises': 'off' } },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/server.ts'],
    rules: { 'no-restricted-properties': ['error', { object: 'process', property: 'env', message: 'Only server.ts reads the environment.' }] }
  },
  layer(['src/redis/**/*.ts', 'src/schemas.ts', 'src/problems.ts'], ['**/modules/**', '**/routes/**', '**/plugins/**'], 'Lower layers import no higher one.'),
  layer(['src/plugins/**/*.ts'], ['**/routes/**', '**/app.ts'], 'Plugins are infrastructure.'),
  {
    files: ['src/modules/lifecycle/**/*.ts'],
    rules: {
      '@typescript-eslint/no-restricted-imports': ['error', {
        patterns: [{ group: MODULES.filter(name => name !== 'lifecycle').map(name => `../${name}/**`), allowTypeImports: true, message: 'The lifecycle takes the other modules by decorator and imports their types only.' }]
      }]
    }
  },
  ...MODULES.filter(name => name !== 'lifecycle').map(name => layer(
    [`src/modules/${name}/**/*.ts`],
    ['**/routes/**', '**/app.ts', ...MODULES.filter(other => other !== name).map(other => `../${other}/**`)],
    'A module takes another module by its decorator, never by import.'
  )),
  {
    files: ['src/modules/*/*.ts'],
    ignores: ['src/modules/*/index.ts'],
    rules: { 'no-restricted-syntax': ['error', { selector: 'ImportDeclaration[source.value=/^fastify/]', message: 'Only index.ts of a module knows Fastify.' }] }
  },
  { files: ['test/e2e/**/*.ts'], rules: { 'no-restricted-imports': ['error', { patterns: [{ group: ['**/src/**'], message: 'e2e drives the built service only.' }] }] } }
]
