{{- /* An image: the digest wins over the tag. */}}
{{- define "orchestrator.image" -}}
{{ .name }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
