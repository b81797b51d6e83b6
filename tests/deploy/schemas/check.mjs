// Reads [{where, object}] from stdin and writes [{where, problem}]: what TypeScript says of each object as its operator's
// type (an unknown field, a missing one, a wrong kind of value), and what the operator's validator says (patterns, limits).
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const require = createRequire(join(folder, "package.json"));
const ts = require("typescript");

const PACKAGES = {
  "argoproj.io": "argo-cd",
  "cert-manager.io": "cert-manager",
  "external-secrets.io": "external-secrets",
  "gateway.networking.k8s.io": "gateway-api",
  "kafka.strimzi.io": "strimzi-kafka-operator",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "postgresql.cnpg.io": "cloudnative-pg",
};
const BARMAN = "@kubernetes-models/cloudnative-pg/github.com/cloudnative-pg/barman-cloud/pkg/api/BarmanObjectStoreConfiguration";
// The plugin's own type is in no package; what it configures is.
const OBJECT_STORE = `{apiVersion: "barmancloud.cnpg.io/v1"; kind: "ObjectStore"; metadata: {name: string; namespace: string};
  spec: {retentionPolicy?: string; configuration: import("${BARMAN}").IBarmanObjectStoreConfiguration}}`;

function known(object) {
  const [group] = object.apiVersion.split("/");
  const name = PACKAGES[group];
  return name && `@kubernetes-models/${name}/${object.apiVersion}/${object.kind}`;
}

function typeOf(object) {
  if (object.apiVersion === "barmancloud.cnpg.io/v1" && object.kind === "ObjectStore") return OBJECT_STORE;
  const path = known(object);
  return path && `import("${path}").I${object.kind}`;
}

function typed(given) {
  const source = given
    .map(({ object, type }, number) => `export const o${number}: ${type ?? typeOf(object)} = ${JSON.stringify(object, null, 1)};`)
    .join("\n//\n");
  const file = join(folder, "objects.ts");
  const options = {
    strict: true, noEmit: true, skipLibCheck: true, types: [],
    module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, target: ts.ScriptTarget.ES2022,
  };
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile.bind(host);
  host.getSourceFile = (name, ...rest) => (name === file ? ts.createSourceFile(name, source, rest[0], true) : read(name, ...rest));
  host.fileExists = ((before) => (name) => name === file || before(name))(host.fileExists.bind(host));
  const program = ts.createProgram([file], options, host);
  const starts = [];
  for (const found of source.matchAll(/^export const o\d+/gm)) starts.push(found.index);
  return ts.getPreEmitDiagnostics(program).map((one) => {
    const number = starts.filter((start) => start <= (one.start ?? 0)).length - 1;
    const at = one.start === undefined ? "" : source.slice(one.start, one.start + (one.length ?? 0)).split("\n")[0];
    return { where: given[number]?.where ?? "?", problem: `${at}: ${ts.flattenDiagnosticMessageText(one.messageText, " ")}` };
  });
}

async function valid(given) {
  const problems = [];
  for (const { where, object } of given) {
    const path = known(object);
    if (!path) continue;
    const file = join(folder, "node_modules", `${path}.js`);
    try {
      const model = (await import(pathToFileURL(file).href))[object.kind];
      new model(object).validate();
    } catch (error) {
      problems.push({ where, problem: String(error.message) });
    }
  }
  return problems;
}

const given = JSON.parse(readFileSync(0, "utf8"));
const strange = given.filter(({ object, type }) => !type && !typeOf(object));
const rest = given.filter((one) => !strange.includes(one));
const problems = [
  ...strange.map(({ where, object }) => ({ where, problem: `no package has ${object.apiVersion} ${object.kind}` })),
  ...typed(rest),
  ...(await valid(rest.filter((one) => !one.type))),
];
process.stdout.write(JSON.stringify(problems));
