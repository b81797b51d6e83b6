{{/* Who a process is at Kafka: {secret, name}. Call with (dict "root" $ "own" its own user, which may be empty, "what" its place). */}}
{{- define "recupera.kafka.user" -}}
{{- $shared := .root.Values.kafka.user -}}
{{- $own := .own | default dict -}}
{{- $secret := $own.secret | default $shared.secret -}}
{{- $name := $own.name | default (ternary $own.secret ($shared.name | default $shared.secret) (ne ($own.secret | default "") "")) -}}
{{- if and (hasPrefix "SASL" .root.Values.kafka.security) (not $secret) -}}
{{- fail (printf "kafka.security is %s: %s.secret or kafka.user.secret must name the Secret with the password" .root.Values.kafka.security .what) -}}
{{- end -}}
{{- if and (eq "PLAINTEXT" .root.Values.kafka.security) $secret -}}
{{- fail (printf "kafka.security is PLAINTEXT: %s.secret would not be used" .what) -}}
{{- end -}}
{{- toJson (dict "secret" $secret "name" $name) -}}
{{- end }}

{{/* Variables for talking to Kafka, beside RECUPERA_KAFKA. Files, not values: what is changed in a Secret reaches a running pod. */}}
{{- define "recupera.kafka.env" -}}
{{- $kafka := .root.Values.kafka -}}
{{- $user := include "recupera.kafka.user" . | fromJson -}}
{{- if ne "PLAINTEXT" $kafka.security }}
- {name: RECUPERA_KAFKA_SECURITY, value: {{ $kafka.security }}}
{{- end }}
{{- if $kafka.tls.caSecret }}
- {name: RECUPERA_KAFKA_CA_FILE, value: /kafka/ca/ca.crt}
{{- end }}
{{- if hasPrefix "SASL" $kafka.security }}
- {name: RECUPERA_KAFKA_MECHANISM, value: {{ $kafka.user.mechanism }}}
- {name: RECUPERA_KAFKA_USER, value: {{ $user.name | quote }}}
- {name: RECUPERA_KAFKA_PASSWORD_FILE, value: /kafka/user/password}
{{- else if $user.secret }}
- {name: RECUPERA_KAFKA_CERTIFICATE_FILE, value: /kafka/user/user.crt}
- {name: RECUPERA_KAFKA_KEY_FILE, value: /kafka/user/user.key}
{{- end }}
{{- end }}

{{- define "recupera.kafka.mounts" -}}
{{- if .root.Values.kafka.tls.caSecret }}
- {name: kafka-ca, mountPath: /kafka/ca, readOnly: true}
{{- end }}
{{- if (include "recupera.kafka.user" . | fromJson).secret }}
- {name: kafka-user, mountPath: /kafka/user, readOnly: true}
{{- end }}
{{- end }}

{{- define "recupera.kafka.volumes" -}}
{{- $kafka := .root.Values.kafka -}}
{{- with $kafka.tls.caSecret }}
- name: kafka-ca
  secret: {secretName: {{ . }}, items: [{key: {{ $kafka.tls.caKey }}, path: ca.crt}]}
{{- end }}
{{- with (include "recupera.kafka.user" . | fromJson).secret }}
- name: kafka-user
  {{- if hasPrefix "SASL" $kafka.security }}
  secret: {secretName: {{ . }}, items: [{key: {{ $kafka.user.passwordKey }}, path: password}]}
  {{- else }}
  secret: {secretName: {{ . }}, items: [{key: {{ $kafka.user.certificateKey }}, path: user.crt}, {key: {{ $kafka.user.keyKey }}, path: user.key}]}
  {{- end }}
{{- end }}
{{- end }}

{{/* The CA of a service's database: {secret, key}; empty where none is named. Call with (dict "root" $ "database" its values). */}}
{{- define "recupera.database.ca" -}}
{{- $own := .database.caSecret -}}
{{- toJson (dict "secret" ($own | default .root.Values.database.caSecret) "key" (ternary .database.caKey .root.Values.database.caKey (ne ($own | default "") ""))) -}}
{{- end }}

{{/* libpq takes these where the address says nothing else: the server must show a certificate of this CA, for the name we called. */}}
{{- define "recupera.database.env" -}}
{{- if (include "recupera.database.ca" . | fromJson).secret }}
- {name: PGSSLMODE, value: verify-full}
- {name: PGSSLROOTCERT, value: /database/ca/ca.crt}
{{- end }}
{{- end }}

{{/* Who signed the collector's certificate; the exporter of OpenTelemetry takes it from this variable. */}}
{{- define "recupera.telemetry.env" -}}
{{- if .Values.telemetry.caSecret }}
- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /telemetry/ca/ca.crt}
{{- end }}
{{- end }}

{{- define "recupera.telemetry.mounts" -}}
{{- if .Values.telemetry.caSecret }}
- {name: telemetry-ca, mountPath: /telemetry/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "recupera.telemetry.volumes" -}}
{{- with .Values.telemetry.caSecret }}
- name: telemetry-ca
  secret: {secretName: {{ . }}, items: [{key: {{ $.Values.telemetry.caKey }}, path: ca.crt}]}
{{- end }}
{{- end }}

{{- define "recupera.database.mounts" -}}
{{- if (include "recupera.database.ca" . | fromJson).secret }}
- {name: database-ca, mountPath: /database/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "recupera.database.volumes" -}}
{{- with include "recupera.database.ca" . | fromJson }}
{{- if .secret }}
- name: database-ca
  secret: {secretName: {{ .secret }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
