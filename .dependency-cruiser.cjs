/** Who may import whom; each line of the house plan is one named rule. `test/arch_test.ts` breaks every one of them. */
const TEST = '_test\\.ts$';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'model-stands-alone',
      comment: 'The vocabulary: io-ts, fp-ts, ipaddr.js and node:net only.',
      severity: 'error',
      from: { path: '^functions/model/', pathNot: TEST },
      to: { pathNot: ['^functions/model/', '(^|/)node_modules/(io-ts|fp-ts|ipaddr\\.js)/'] },
    },
    {
      name: 'functions-are-pure',
      comment: 'A function knows the model and its neighbours: no files, no process, no network, no runner.',
      severity: 'error',
      from: { path: '^functions/src/', pathNot: [TEST, '_run\\.ts$'] },
      to: { pathNot: ['^functions/(model|src)/', '(^|/)node_modules/(fp-ts|kpt-functions)/', '^(node:)?util$'] },
    },
    {
      name: 'only-run-files-run',
      comment: 'x_run.ts joins the pure function and the runner; nobody else imports the runner.',
      severity: 'error',
      from: { path: '^functions/(src|model)/', pathNot: [TEST, '_run\\.ts$'] },
      to: { path: '^functions/lib/' },
    },
    {
      name: 'lib-knows-no-function',
      severity: 'error',
      from: { path: '^functions/lib/', pathNot: TEST },
      to: { path: '^functions/src/' },
    },
    {
      name: 'functions-know-nobody-else',
      severity: 'error',
      from: { path: '^functions/', pathNot: TEST },
      to: { path: '^(agents|bench|cli|scripts|test)/' },
    },
    {
      name: 'agents-know-the-model-only',
      comment: 'Of what runs at render time an agent shares the vocabulary, no function and no runner.',
      severity: 'error',
      from: { path: '^agents/', pathNot: TEST },
      to: { path: ['^functions/(src|lib|schema)/', '^(bench|cli|scripts)/'] },
    },
    {
      name: 'agents-know-not-each-other',
      comment: 'What two of them need is in agents/lib.',
      severity: 'error',
      from: { path: '^agents/([^/]+)/' },
      to: { path: '^agents/', pathNot: '^agents/($1|lib)/' },
    },
    {
      name: 'only-agents-lib-touches-the-world',
      comment: 'Sockets, processes and the Kubernetes client have one door each. VICI is the frontend’s own.',
      severity: 'error',
      from: { path: '^agents/', pathNot: [TEST, '^agents/lib/', '^agents/frontend/vici/connection\\.ts$'] },
      to: {
        path: ['^(node:)?(child_process|dgram|fs|fs/promises|http|http2|https|net|tls)$', '/node_modules/@kubernetes/'],
      },
    },
    {
      name: 'only-tests-and-benchmarks-import-test',
      severity: 'error',
      from: { pathNot: [TEST, '^(test|bench)/'] },
      to: { path: '^test/' },
    },
    {
      name: 'resolvable',
      comment: 'Nothing that is not installed, nothing that the package does not name.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(functions|agents)/dist/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
    },
  },
};
