#!/bin/sh
# The estate of inventories/demo.toml by hand: a shell script over plain ssh that works on both hosts at the same time.
# It leaves out what `provision all` verifies: the bucket, a push and a pull, and what GitLab reports about its settings.
# Arguments: LAB GITLAB RUNNER GATEWAY SOURCE. LAB: the lab's folder with keys and secrets; GITLAB, RUNNER, GATEWAY:
# addresses; SOURCE: the project's files, with .gitlab-ci.yml.
set -eu
lab=$1 gitlab=$2 runner=$3 gateway=$4 source=$5
name=gitlab.example.com
live=/etc/letsencrypt/live/$name
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

on() { # on ADDRESS: runs standard input as root on this host
  ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o ControlPath=none -o UserKnownHostsFile="$lab/known_hosts" \
    -i "$lab/id_ed25519" "ubuntu@$1" sudo sh
}

put() { # put PATH: prints a command that writes our standard input to the path
  printf 'mkdir -p "%s"\ncat > "%s" << "END OF FILE"\n' "${1%/*}" "$1"
  cat
  printf 'END OF FILE\n'
}

apt_source() { # apt_source NAME PATH KEY: prints commands that add a repository of the lab
  put "/etc/apt/keyrings/$1.asc" < "$lab/$3"
  printf 'Types: deb\nURIs: http://%s:8080/%s\nSuites: trixie\nComponents: %s\nSigned-By: /etc/apt/keyrings/%s.asc\n' \
    "$gateway" "$2" "$4" "$1" | put "/etc/apt/sources.list.d/$1.sources"
}

prelude() {
  printf 'set -eu\numask 022\nexport DEBIAN_FRONTEND=noninteractive\n'
}

ca() {
  put /usr/local/share/ca-certificates/lab.crt < "$lab/ca.pem"
  echo 'update-ca-certificates > /dev/null'
}

server() {
  prelude
  cat << 'COMMANDS'
for port in 22 80 443 5555; do ufw allow "$port/tcp" > /dev/null; done
ufw --force enable > /dev/null
COMMANDS
  apt_source gitlab gitlab/gitlab-ce/debian/trixie gitlab.asc main
  ca
  echo 'apt-get update -qq; apt-get install -qq -y gitlab-ce > /dev/null'
  echo 'cat >> /etc/gitlab/gitlab.rb << "END OF FILE"'
  cat << SETTINGS
external_url 'https://$name'
registry_external_url 'https://$name:5555'
letsencrypt['enable'] = false
nginx['ssl_certificate'] = '$live/fullchain.pem'
nginx['ssl_certificate_key'] = '$live/privkey.pem'
registry['nginx']['ssl_certificate'] = '$live/fullchain.pem'
registry['nginx']['ssl_certificate_key'] = '$live/privkey.pem'
registry['storage']['s3'] = {
  'bucket' => 'registry', 'region' => 'nyc3', 'regionendpoint' => 'http://$gateway:9000', 'pathstyle' => true,
  'accesskey' => '$(cat "$lab/s3_access_key")', 'secretkey' => '$(cat "$lab/s3_secret_key")'
}
END OF FILE
SETTINGS
  cat << 'COMMANDS'
gitlab-ctl reconfigure > /dev/null
gitlab-rails runner - << 'RUBY'
COMMANDS
  cat << RUBY
root = User.admins.active.order(:id).first
root.password = root.password_confirmation = '$(cat "$lab/rehearsal_secret")'
root.password_automatically_set = false
root.save!
token = root.personal_access_tokens.build(name: 'by hand')
token.scopes = ['api']
token.expires_at = Date.current.advance(days: 365)
token.set_token('$(cat "$work/token")')
token.save!
RUBY
  echo RUBY
}

builder() {
  prelude
  apt_source docker docker/linux/debian docker.asc stable
  apt_source gitlab-runner runner/gitlab-runner/debian gitlab.asc main
  ca
  put "/etc/docker/certs.d/$name:5555/ca.crt" < "$lab/ca.pem"
  put "/etc/gitlab-runner/certs/$name.crt" < "$lab/ca.pem"
  printf '{"registry-mirrors": ["https://%s:8443"]}\n' "$gateway" | put /etc/docker/daemon.json
  cat << 'COMMANDS'
apt-get update -qq
apt-get install -qq -y docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin \
  gitlab-runner gitlab-runner-helper-images > /dev/null
systemctl -q enable --now docker gitlab-runner
COMMANDS
}

register() { # register TOKEN
  prelude
  cat << COMMANDS
export CI_SERVER_TOKEN=$1
gitlab-runner register --non-interactive --url https://$name --name docker-builder --executor docker \
  --docker-image docker:28-cli --docker-volumes /var/run/docker.sock:/var/run/docker.sock --docker-volumes /cache \
  --docker-extra-hosts $name:$gitlab > /dev/null 2>&1
sed -i 's/^concurrent = .*/concurrent = 2/' /etc/gitlab-runner/config.toml
COMMANDS
}

app() {
  prelude
  cat << COMMANDS
docker login -u sammy --password-stdin $name:5555 > /dev/null 2>&1 << "END OF FILE"
$(cat "$lab/rehearsal_secret")
END OF FILE
docker run -d --name hello_hapi --restart unless-stopped -p 3000:3000 $name:5555/sammy/hello_hapi:latest > /dev/null
until curl -fs --noproxy '*' http://localhost:3000/hello/test; do sleep 0.2; done
COMMANDS
}

api() { # api METHOD PATH [curl's arguments]
  method=$1 path=$2
  shift 2
  curl -fsS --noproxy '*' --cacert "$lab/ca.pem" --resolve "$name:443:$gitlab" -H "@$work/header" -X "$method" "$@" \
    "https://$name/api/v4/$path"
}

first() { # first NAME: prints the first value of this key in standard input, which is JSON
  grep -o '"'"$1"'": *"\{0,1\}[^",}]*' | head -n 1 | sed 's/.*[: "]//'
}

printf 'glpat-%s' "$(head -c 20 /dev/urandom | od -An -v -tx1 | tr -d ' \n')" > "$work/token"
printf 'PRIVATE-TOKEN: %s\n' "$(cat "$work/token")" > "$work/header"
server | on "$gitlab" &
server=$!
builder | on "$runner" &
builder=$!
wait "$server"
until api GET version > /dev/null 2>&1; do sleep 0.2; done

printf '{"username":"sammy","name":"Sammy","email":"sammy@example.com","password":"%s","skip_confirmation":true}' \
  "$(cat "$lab/rehearsal_secret")" > "$work/sammy"
json='Content-Type: application/json'
api POST users -H "$json" --data "@$work/sammy" > /dev/null
namespace=$(api GET namespaces/sammy | first id)
project=$(api POST projects -H "$json" --data \
  "{\"name\":\"hello_hapi\",\"path\":\"hello_hapi\",\"namespace_id\":$namespace,\"description\":\"Says hello\"}" | first id)
api PUT "projects/$project" -H "$json" --data '{"shared_runners_enabled":false}' > /dev/null
created=$(api POST user/runners -H "$json" --data \
  "{\"runner_type\":\"project_type\",\"project_id\":$project,\"description\":\"docker-builder\",\"locked\":true}")
token=$(printf '%s' "$created" | first token)
wait "$builder"
register "$token" | on "$runner" &
registered=$!

cp -r "$source" "$work/source"
printf 'https://root:%s@%s\n' "$(cat "$work/token")" "$name" > "$work/credentials"
cd "$work/source"
git init -q -b main
git -c core.safecrlf=false add --all --force
git -c user.name=Sammy -c user.email=sammy@example.com commit -q -m 'The first version'
GIT_SSL_CAINFO=$lab/ca.pem git -c http.curloptResolve="$name:443:$gitlab" -c http.proxy= \
  -c credential.helper="store --file=$work/credentials" push -q "https://$name/sammy/hello_hapi.git" main
wait "$registered"
until state=$(api GET "projects/$project/pipelines?per_page=1" | first status) && [ "$state" = success ]; do
  case $state in failed | canceled | skipped) echo "the pipeline: $state" >&2; exit 1 ;; esac
  sleep 0.5
done
app | on "$runner"
