#!/bin/sh
# Says what a cluster lacks, before anything is applied to it. Reads objects, changes nothing:
#
#   kubectl kustomize deploy/k8s/overlays/prod | deploy/preflight.sh && kubectl apply -k deploy/k8s/overlays/prod
#   helm template orchestrator deploy/helm/orchestrator | deploy/preflight.sh
#
# Looked at are the version of Kubernetes, the kinds that must be known, and the secrets, namespaces and classes of ingresses and volumes that are asked
# for and not among the objects.
set -eu

# Since this version containers can sleep before they are stopped, and AppArmor is a field.
oldest=30

objects=$(mktemp)
trap 'rm -f "$objects"' EXIT
cat > "$objects"
if ! grep -q '^kind:' "$objects"; then
  echo "no objects came in: kubectl kustomize DIRECTORY | $0" >&2
  exit 2
fi

lacking=0
lacks() {
  echo "missing: $1" >&2
  lacking=1
}

if ! version=$(kubectl get --raw /version); then
  echo "the cluster does not answer: is the right context chosen? (kubectl config current-context)" >&2
  exit 2
fi
minor=$(printf '%s' "$version" | tr -d ' \n' | sed -n 's/.*"minor":"\([0-9]*\).*/\1/p')
if [ "${minor:-0}" -lt "$oldest" ]; then
  lacks "Kubernetes 1.$oldest or newer; this one is 1.${minor:-?}"
fi

# One line for each object: kind, version, namespace; then its secrets.
facts=$(awk '
  function put() {
    if (kind != "") print "object", kind, version, (namespace == "" ? "-" : namespace), (name == "" ? "-" : name)
    # What an issuer names is made, or kept, where cert-manager is.
    if (kind !~ /Issuer$/) for (i = 0; i < count; i++) print (kind == "Certificate" || asked && !login[i] ? "makes" : "wants"), (namespace == "" ? "-" : namespace), secrets[i]
    if ((kind == "StatefulSet" && claims || kind == "PersistentVolumeClaim") && !classes) print "storage", "-"
    kind = version = namespace = name = section = ""; count = claims = classes = asked = 0
  }
  function bare(text) { sub(/^[^:]*: */, "", text); gsub(/["\047]/, "", text); return text }
  /^---/ { put(); next }
  /^[a-zA-Z]/ { section = $1 }
  /^apiVersion:/ { version = $2 }
  /^kind:/ { kind = $2 }
  section == "metadata:" && /^  namespace:/ { namespace = $2 }
  section == "metadata:" && /^  name:/ { name = $2 }
  /^ *ingressClassName:/ { print "ingress", bare($0) }
  /^ *storageClassName:/ { print "storage", bare($0); classes++ }
  /^ *volumeClaimTemplates:/ { claims++ }
  # An Ingress that names an issuer has its certificates made.
  /^ *cert-manager.io\/(cluster-)?issuer:/ { asked = 1 }
  /^ *(- )?secretName:/ || /auth-secret:/ { login[count] = /auth-secret:/; secrets[count++] = bare($0) }
  END { put() }
' "$objects")

known=$(kubectl api-resources --no-headers | awk '{ print $NF, $(NF - 2) }')
needed=$(printf '%s\n' "$facts" | awk '$1 == "object" { print $2, $3 }' | sort -u)
while read -r kind version; do
  if ! printf '%s\n' "$known" | grep -qxF -- "$kind $version"; then
    case $version in
      monitoring.coreos.com/*) from="the Prometheus operator; without it, leave the component monitoring out (Helm: monitoring.operator=false)" ;;
      argoproj.io/*) from="Argo Rollouts (Rollout, AnalysisTemplate) or Argo CD (Application, AppProject)" ;;
      cert-manager.io/*) from="cert-manager" ;;
      secrets-store.csi.x-k8s.io/*) from="the Secrets Store CSI driver" ;;
      *) from="a newer Kubernetes" ;;
    esac
    lacks "the kind $kind of $version, which comes with $from"
  fi
done <<EOF
$needed
EOF

made=$(printf '%s\n' "$facts" | awk '$1 == "makes" { print $2, $3 } $1 == "object" && $2 == "Secret" { print $4, $5 }')
wanted=$(printf '%s\n' "$facts" | awk '$1 == "wants" { print $2, $3 }' | sort -u)
while read -r namespace name; do
  [ -n "$name" ] || continue
  if printf '%s\n' "$made" | grep -qxF -- "$namespace $name"; then continue; fi
  if ! kubectl --namespace "$namespace" get secret "$name" --output name > /dev/null 2>&1; then
    case $name in
      orchestrator-page-tls) from="; kubectl -n $namespace create secret tls $name --cert=FILE --key=FILE makes it, or cert-manager does (component mtls; Helm: tls.enabled)" ;;
      orchestrator-login | orchestrator-agent-login | orchestrator-agent-credential) from="; deploy/secrets.sh | kubectl create -f - makes it" ;;
      *) from="" ;;
    esac
    lacks "the Secret $name in the namespace $namespace$from"
  fi
done <<EOF
$wanted
EOF

for class in $(printf '%s\n' "$facts" | awk '$1 == "ingress" { print $2 }' | sort -u); do
  if ! kubectl get ingressclass "$class" --output name > /dev/null 2>&1; then
    lacks "the IngressClass $class: its controller is not there, or its class has another name"
  fi
done
for class in $(printf '%s\n' "$facts" | awk '$1 == "storage" { print $2 }' | sort -u); do
  if [ "$class" = - ]; then
    if ! kubectl get storageclass --output jsonpath='{.items[*].metadata.annotations.storageclass\.kubernetes\.io/is-default-class}' 2> /dev/null | grep -q true; then
      lacks "a StorageClass that is the default, or one that the volumes name (Helm: zookeeper.storage.className, controlPlane.storage.className)"
    fi
  elif ! kubectl get storageclass "$class" --output name > /dev/null 2>&1; then
    lacks "the StorageClass $class"
  fi
done

own=$(printf '%s\n' "$facts" | awk '$1 == "object" && $2 == "Namespace" { print $5 }')
used=$(printf '%s\n' "$facts" | awk '$1 == "object" && $4 != "-" { print $4 }' | sort -u)
for namespace in $used; do
  if printf '%s\n' "$own" | grep -qxF -- "$namespace"; then continue; fi
  if ! kubectl get namespace "$namespace" --output name > /dev/null 2>&1; then
    lacks "the namespace $namespace"
  fi
done

if [ "$lacking" = 1 ]; then
  echo "nothing was applied" >&2
  exit 1
fi
echo "the cluster has what these objects need"
