{{- define "recupera.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "recupera.image" -}}
{{- $image := .image -}}
{{- $tag := $image.tag | default .default -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}{{- else -}}{{ $image.repository }}:{{ $tag }}{{- end -}}
{{- end }}

{{/* Labels of everything; call with (dict "root" $ "component" "case-serve"). */}}
{{- define "recupera.labels" -}}
{{ include "recupera.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "recupera.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What every pod has: nobody's user, no token, no capability, nothing to write but /tmp. */}}
{{- define "recupera.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ range . }}{{ printf "\n  - name: %s" . }}{{ end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "recupera.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "recupera.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "recupera.selector" $ | fromYaml | toJson }}}
  {{- end }}
{{- end }}

{{/* Variables of a service's process; call with (dict "root" $ "service" name "values" its values). */}}
{{- define "recupera.env" -}}
{{- $upper := upper .service }}
- {name: RECUPERA_DATABASE_URL_{{ $upper }}, valueFrom: {secretKeyRef: {name: {{ .values.database.secret }}, key: {{ .values.database.urlKey }}}}}
- {name: RECUPERA_KAFKA, value: {{ .root.Values.kafka.bootstrap | quote }}}
- {name: RECUPERA_LISTEN_HOST, value: 0.0.0.0}
- {name: RECUPERA_RPC_PORT, value: {{ .values.port | quote }}}
- {name: RECUPERA_METRICS_PORT, value: "9464"}
- {name: RECUPERA_READY_FILE, value: /tmp/ready}
{{- with .root.Values.telemetry.otlpEndpoint }}
- {name: RECUPERA_OTLP_ENDPOINT, value: {{ . | quote }}}
- {name: RECUPERA_TRACE_RATIO, value: {{ $.root.Values.telemetry.traceRatio | quote }}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.namespace.name={{ $.root.Release.Namespace }},k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)"}
{{- end }}
- {name: RECUPERA_DRAIN_DELAY, value: {{ .root.Values.drainDelaySeconds | quote }}}
- {name: RECUPERA_JWKS_FILE, value: /keys/public/jwks.json}
- {name: RECUPERA_SERVICE_KEY_FILE, value: /keys/own/key.json}
{{- include "recupera.addresses" .root }}
{{- range $name, $value := merge (dict) .values.env .root.Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $from := .values.envFrom }}
- {name: {{ $name }}, valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}}
{{- end }}
{{- end }}

{{- define "recupera.addresses" -}}
{{- range $service, $values := .Values.services }}
- {name: RECUPERA_{{ upper $service }}_ADDRESS, value: {{ include "recupera.address" (dict "root" $ "service" $service) | quote }}}
{{- end }}
{{- end }}

{{/* host:port of a service's servers, or with .ending of its other Service. */}}
{{- define "recupera.address" -}}
{{ include "recupera.name" .root }}-{{ .service }}{{ .ending }}.{{ .root.Release.Namespace }}.svc:{{ (index .root.Values.services .service).port }}
{{- end }}

{{/* For the gateway: while every server that DNS told it of is gone, the one address behind which the cluster itself puts who is ready. */}}
{{- define "recupera.gateway.addresses" -}}
{{- range $service, $values := .Values.services }}
- name: RECUPERA_{{ upper $service }}_ADDRESS
  value: {{ include "recupera.address" (dict "root" $ "service" $service) }},{{ include "recupera.address" (dict "root" $ "service" $service "ending" "-ready") }}
{{- end }}
{{- end }}

{{/* An egress rule for {ports, to}. */}}
{{- define "recupera.egress" -}}
- ports: {{ range .ports }}{{ printf "\n    - {port: %d}" (int .) }}{{ end }}
  {{- with .to }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
