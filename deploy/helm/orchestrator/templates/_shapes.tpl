{{- /* What a single value may look like. The schema has the types; here each has a sentence that says what is wrong and shows one that is right. */}}
{{- define "orchestrator.shape" -}}
{{- if not (regexMatch (index . 1) (index . 2 | toString)) }}
{{- fail (printf "%s is %q, which is %s" (index . 0) (index . 2 | toString) (index . 3)) }}
{{- end }}
{{- end -}}
{{- define "orchestrator.shapes" -}}
{{- $range := `^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}/(3[0-2]|[12]?[0-9])|[0-9a-fA-F:]*:[0-9a-fA-F:]*/(12[0-8]|1[01][0-9]|[0-9]?[0-9]))$` }}
{{- $no_range := "no range of addresses: 10.0.0.1/32 is one machine, 10.0.0.0/16 a network" }}
{{- range $name, $cidrs := dict "network.nodes" .Values.network.nodes "network.ensembles" .Values.network.ensembles "network.frameworks" .Values.network.frameworks "network.hooks.cidrs" .Values.network.hooks.cidrs "network.apiServer.cidrs" .Values.network.apiServer.cidrs }}
{{- range $cidrs }}
{{- include "orchestrator.shape" (list (printf "one of %s" $name) $range . $no_range) }}
{{- end }}
{{- end }}
{{- range .Values.network.taskPorts }}
{{- include "orchestrator.shape" (list "one of network.taskPorts" `^[0-9]{1,5}(-[0-9]{1,5})?$` . "no ports: one is 8000, and a range 31000-32000") }}
{{- end }}
{{- range $name, $image := .Values.images }}
{{- include "orchestrator.shape" (list (printf "images.%s.name" $name) `^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+$` $image.name "no name of an image: it is without a tag and a digest, which have values of their own, as registry.example:5000/orchestrator-probe") }}
{{- include "orchestrator.shape" (list (printf "images.%s.tag" $name) `^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$` ($image.tag | default "") "no tag: letters, digits, _ . and -, 128 at most") }}
{{- include "orchestrator.shape" (list (printf "images.%s.digest" $name) `^(sha256:[0-9a-f]{64})?$` ($image.digest | default "") "no digest: sha256: and 64 digits from 0 to f") }}
{{- end }}
{{- range $component := list "controlPlane" "zookeeper" "probe" "agent" "collector" }}
{{- range $kind, $amounts := index $.Values $component "resources" }}
{{- range $what, $amount := $amounts }}
{{- if eq $what "cpu" }}
{{- include "orchestrator.shape" (list (printf "%s.resources.%s.cpu" $component $kind) `^[0-9]+(\.[0-9]+)?m?$` $amount "no number of processors: as 2, 0.5 or 500m") }}
{{- else }}
{{- include "orchestrator.shape" (list (printf "%s.resources.%s.memory" $component $kind) `^[0-9]+(\.[0-9]+)?([kMGT]|[KMGT]i)$` $amount "no amount of memory: as 512Mi or 2Gi") }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $name := `^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$` }}
{{- $no_name := "no name in Kubernetes: small letters, digits, - and ." }}
{{- range $what, $value := dict "controlPlane.usersSecret" .Values.controlPlane.usersSecret "controlPlane.storage.className" .Values.controlPlane.storage.className "zookeeper.storage.className" .Values.zookeeper.storage.className "ingress.tlsSecret" .Values.ingress.tlsSecret }}
{{- include "orchestrator.shape" (list $what $name $value $no_name) }}
{{- end }}
{{- range .Values.imagePullSecrets }}
{{- include "orchestrator.shape" (list "one of imagePullSecrets" `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$` . $no_name) }}
{{- end }}
{{- range .Values.controlPlane.secrets }}
{{- include "orchestrator.shape" (list "one of controlPlane.secrets" `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$` . $no_name) }}
{{- end }}
{{- include "orchestrator.shape" (list "tls.issuer" `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$` .Values.tls.issuer $no_name) }}
{{- range $what, $value := dict "ingress.namespace" .Values.ingress.namespace "monitoring.namespace" .Values.monitoring.namespace }}
{{- include "orchestrator.shape" (list $what `^[a-z0-9]([a-z0-9-]*[a-z0-9])?$` $value "no name of a namespace: small letters, digits and -") }}
{{- end }}
{{- include "orchestrator.shape" (list "controlPlane.storage.size" `^([0-9]+(Mi|Gi|Ti))?$` .Values.controlPlane.storage.size "no size of a volume: as 10Gi") }}
{{- range $what, $value := dict "zookeeper.storage.data" .Values.zookeeper.storage.data "zookeeper.storage.log" .Values.zookeeper.storage.log }}
{{- include "orchestrator.shape" (list $what `^[0-9]+(Mi|Gi|Ti)$` $value "no size of a volume: as 10Gi") }}
{{- end }}
{{- include "orchestrator.shape" (list "ingress.host" `^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$` .Values.ingress.host "no name of a host: as map.example.com, without a scheme and a path") }}
{{- include "orchestrator.shape" (list "canary.prometheus" `^(https?://.+)?$` .Values.canary.prometheus "no URL: as http://prometheus-operated.monitoring.svc:9090") }}
{{- include "orchestrator.shape" (list "vault.address" `^https?://.+$` .Values.vault.address "no URL: as https://vault.vault.svc:8200") }}
{{- include "orchestrator.shape" (list "confinement.seLinuxType" `^([a-z0-9_]+_t)?$` .Values.confinement.seLinuxType "no type of SELinux: they end with _t, as spc_t") }}
{{- include "orchestrator.shape" (list "probe.criSocket" `^(/[^/,]+(/[^/,]+)+)?$` .Values.probe.criSocket "no socket: its whole path, as /var/snap/microk8s/common/run/containerd.sock") }}
{{- include "orchestrator.shape" (list "zookeeper.jvmFlags" `^(-\S+( +-\S+)*)?$` .Values.zookeeper.jvmFlags "no list of flags of a JVM: as -Xms1g -Xmx1g") }}
{{- range $what, $value := dict "controlPlane.mesosFlags" .Values.controlPlane.mesosFlags "controlPlane.marathonFlags" .Values.controlPlane.marathonFlags }}
{{- include "orchestrator.shape" (list $what `^(--\S+( +--\S+)*)?$` $value "no list of flags: each begins with -- and has its value behind =, with blanks between, as --cluster=main --offer_timeout=1mins") }}
{{- end }}
{{- include "orchestrator.shape" (list "agent.offers" `^([\w.-]+(\([\w.*/-]+\))?:([0-9]+(\.[0-9]+)?|\[[^\]]*\]|\{[^}]*\})(;[\w.-]+(\([\w.*/-]+\))?:([0-9]+(\.[0-9]+)?|\[[^\]]*\]|\{[^}]*\}))*)?$` .Values.agent.offers "no list of resources: numbers, ranges and sets, as cpus:4;mem:8192;ports:[31000-32000]") }}
{{- include "orchestrator.shape" (list "agent.attributes" `^([\w.-]+:[^;]+(;[\w.-]+:[^;]+)*)?$` .Values.agent.attributes "no list of attributes: as rack:a;zone:b") }}
{{- range $key, $value := .Values.monitoring.labels }}
{{- include "orchestrator.shape" (list "a name in monitoring.labels" `^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$` $key "no name of a label: letters, digits, - _ and ., 63 at most") }}
{{- include "orchestrator.shape" (list (printf "monitoring.labels.%s" $key) `^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$` $value "no value of a label: letters, digits, - _ and ., 63 at most") }}
{{- end }}
{{- $flags := .Files.Get "files/flags.yaml" | fromYaml }}
{{- range splitList " " .Values.controlPlane.mesosFlags | compact }}
{{- $name := regexReplaceAll "=.*" . "" | trimPrefix "--" | trimPrefix "no-" | replace "slave" "agent" }}
{{- if not (has $name $flags.mesos) }}
{{- fail (printf "controlPlane.mesosFlags has --%s, which is no flag of a Mesos master, or one whose place flags of the control plane have taken: it would refuse to start" $name) }}
{{- end }}
{{- end }}
{{- range splitList " " .Values.controlPlane.marathonFlags | compact }}
{{- $name := regexReplaceAll "=.*" . "" | trimPrefix "--" }}
{{- if not (has $name $flags.marathon) }}
{{- fail (printf "controlPlane.marathonFlags has --%s, which is no flag of Marathon" $name) }}
{{- end }}
{{- end }}
{{- range $component, $program := dict "controlPlane" "orchestrator-control" "probe" "orchestrator-probe" "agent" "orchestrator-probe" "collector" "orchestrator-probe" }}
{{- $known := index $flags $program }}
{{- range $flag := index $.Values $component "flags" }}
{{- include "orchestrator.shape" (list (printf "one of %s.flags" $component) `^--[a-z][a-z0-9-]*(=.*)?$` $flag "no flag: each item is one whole flag, as --max-probes=5000") }}
{{- $name := regexReplaceAll "=.*" $flag "" | trimPrefix "--" }}
{{- if not (hasKey $known $name) }}
{{- fail (printf "%s.flags has --%s, which %s does not know: docs/reference/configuration.md lists those that it does" $component $name $program) }}
{{- end }}
{{- if and (index $known $name) (not (contains "=" $flag)) }}
{{- fail (printf "%s.flags has %s, which takes a value: %s=VALUE" $component $flag $flag) }}
{{- end }}
{{- if and (not (index $known $name)) (contains "=" $flag) }}
{{- fail (printf "%s.flags has %s, which takes no value: --%s" $component $flag $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
