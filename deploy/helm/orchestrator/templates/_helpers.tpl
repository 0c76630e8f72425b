{{- /* An image: the digest wins over the tag. */}}
{{- define "orchestrator.image" -}}
{{ .name }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- /* Where pods may be, and with which secrets their images are pulled. */}}
{{- define "orchestrator.place" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .at.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- /* Flags of the master: that it asks agents who they are, and what else it is told. */}}
{{- define "orchestrator.mesos-flags" -}}
{{- if .Values.agent.authenticate }}--authenticate_agents --credentials=/agent-credential/credentials{{ with .Values.controlPlane.mesosFlags }} {{ end }}{{ end }}{{ .Values.controlPlane.mesosFlags }}
{{- end -}}
{{- /* Where the API server is: it is no pod. */}}
{{- define "orchestrator.to-api-server" -}}
- to:
  {{- range .Values.network.apiServer.cidrs }}
  - ipBlock:
      cidr: {{ . | quote }}
  {{- end }}
  ports:
  {{- range .Values.network.apiServer.ports }}
  - port: {{ . }}
  {{- end }}
{{- end -}}
{{- /* The ensemble and the place in it. */}}
{{- define "orchestrator.ensemble" -}}
zookeeper-0.zookeeper-peers:2181,zookeeper-1.zookeeper-peers:2181,zookeeper-2.zookeeper-peers:2181/orchestrator
{{- end -}}
{{- /* Another Prometheus than the one that the analyses have built in. */}}
{{- define "orchestrator.prometheus" -}}
{{- $built_in := "http://prometheus-operated.monitoring.svc:9090" }}
{{- $there := .Values.canary.prometheus | default (printf "http://prometheus-operated.%s.svc:9090" .Values.monitoring.namespace) }}
{{- if ne $there $built_in }}
- name: prometheus
  value: {{ $there }}
{{- end }}
{{- end -}}
{{- /* How the kubelet asks a control plane; it does not look whose certificate it is. */}}
{{- define "orchestrator.alive" -}}
httpGet:
  path: {{ .path }}
  port: http
  {{- if .tls }}
  scheme: HTTPS
  {{- end }}
{{- end -}}
{{- /* What a client of the control plane shows. */}}
{{- define "orchestrator.client-tls" -}}
{{- if .Values.tls.enabled }}
- --tls-ca=/tls/ca.crt
- --tls-certificate=/tls/tls.crt
- --tls-key=/tls/tls.key
{{- end }}
{{- end -}}
{{- /* Bytes of a quantity of memory, which the schema has looked at. */}}
{{- define "orchestrator.bytes" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- $unit := regexReplaceAll "^[0-9.]+" . "" }}
{{- mulf $number (get (dict "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit) | int64 }}
{{- end -}}
{{- /* Further flags of a program. */}}
{{- define "orchestrator.flags" -}}
{{- range . }}
- {{ . | quote }}
{{- end }}
{{- end -}}
{{- /* The issuer that makes the page's certificate: of the chart, for the one of its name. */}}
{{- define "orchestrator.page-issuer" -}}
{{- if and .Values.tls.enabled (has .Values.ingress.tlsSecret (list "" "orchestrator-page-tls")) }}{{ .Values.tls.issuer }}{{ end }}
{{- end -}}
{{- /* Not empty where somebody brings the page's certificate: no issuer is asked for it. */}}
{{- define "orchestrator.page-brought" -}}
{{- $asked := or (hasKey .Values.ingress.annotations "cert-manager.io/cluster-issuer") (hasKey .Values.ingress.annotations "cert-manager.io/issuer") }}
{{- if and .Values.ingress.enabled .Values.ingress.tlsSecret (not $asked) (not (include "orchestrator.page-issuer" .)) }}yes{{ end }}
{{- end -}}
{{- define "orchestrator.scheme" -}}
{{ if .Values.tls.enabled }}https{{ else }}http{{ end }}
{{- end -}}
