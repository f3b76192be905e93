#!/bin/sh
# Makes a token for GitLab's API and keeps it in FILE; and sets root's password, while the generated one is valid.
# Arguments: FILE NAME SCOPES INITIAL. SCOPES: separated by spaces, "" to make no token. INITIAL: where GitLab writes root's
# first password. Standard input: root's password in hexadecimal digits, or nothing.
# Prints `root's password was set`, or why it was not.
#
# The token is chosen here and stored in FILE.new before GitLab knows it. A run that is ended in between is completed by the
# next one with the same token, so that there is never a second one. GitLab makes it and revokes every other token of this
# NAME in one transaction. Ruby gets all secrets on standard input: gitlab-rails evaluates it for the argument `-`.
# Sources: railties' runner_command.rb; GitLab's PersonalAccessToken (set_token, find_by_token, at most 365 days);
# docs.gitlab.com/user/profile/personal_access_tokens, "Create a personal access token programmatically".
set -e
umask 077
file=$1 name=$2 scopes=$3 initial=$4
hex() { od -An -v -tx1 | tr -d ' \n'; }
IFS= read -r password || :
generated=
[ -z "$password" ] || ! [ -e "$initial" ] || generated=$(sed -n 's/^Password: //p' "$initial" | tr -d '\n' | hex)
token=
if [ -n "$scopes" ]; then
  if ! [ -s "$file.new" ]; then
    { printf 'glpat-'; head -c 20 /dev/urandom | hex; echo; } > "$file.part"
    sync -- "$file.part"
    mv -f -- "$file.part" "$file.new"
  fi
  IFS= read -r token < "$file.new"
fi
answer=$(
  {
    printf "token = '%s'\nname = '%s'\nscopes = %%w[%s]\npassword = ['%s'].pack('H*')\ngenerated = ['%s'].pack('H*')\n" \
      "$token" "$name" "$scopes" "$password" "$generated"
    cat << 'RUBY'
hide = lambda { |text| [token, password, generated].reject(&:empty?).inject(text) { |now, one| now.gsub(one, '***') } }
begin
  [password, generated].each { |one| one.force_encoding('UTF-8') }
  administrator = User.admins.active.order(:id).first or raise 'GitLab has no active administrator'
  PersonalAccessToken.transaction do
    unless token.empty?
      kept = PersonalAccessToken.find_by_token(token)
      if kept.nil?
        kept = administrator.personal_access_tokens.build(name: name)
        available = Gitlab::Auth.all_available_scopes.map(&:to_s)
        scopes = ['api'] unless (scopes - available).empty?
        scopes += ['admin_mode'] if Gitlab::CurrentSettings.admin_mode
        kept.scopes = scopes
        longest = kept.respond_to?(:max_expiration_lifetime_in_days, true) ? kept.send(:max_expiration_lifetime_in_days) : 365
        kept.expires_at = Date.current.advance(days: [longest, 365].min)
        # Columns of newer versions, where a token belongs to an organization.
        owned = [kept, administrator].all? { |one| one.respond_to?(:organization_id) }
        kept.organization_id ||= administrator.organization_id if owned
        kept.set_token(token)
        kept.save!
      end
      if kept.active?
        PersonalAccessToken.active.where(name: name).where.not(id: kept.id).each(&:revoke!)
        puts "provision: token #{kept.created_at.to_date} #{kept.expires_at} #{kept.scopes.join(',')}"
      else
        puts 'provision: revoked'
      end
    end
  end
  if !password.empty?
    if generated.empty? || !administrator.valid_password?(generated)
      puts 'provision: password kept'
    else
      administrator.password = administrator.password_confirmation = password
      administrator.password_automatically_set = false
      administrator.save!
      puts 'provision: password set'
    end
  end
rescue StandardError => error
  abort hide.call("#{error.class}: #{error.message}")
end
RUBY
  } | /opt/gitlab/bin/gitlab-rails runner -
)
said() { printf '%s\n' "$answer" | grep -a "^provision: $1"; }
if said revoked > /dev/null; then
  rm -f -- "$file.new"
  echo "the token that an earlier run made was revoked in the meantime: rerun the command, which makes another one" >&2
  exit 1
fi
if [ -n "$scopes" ]; then
  # shellcheck disable=SC2046 # three words
  set -- $(said token | sed 's/^provision: token //')
  [ "$#" = 3 ] || { echo "gitlab-rails printed no result" >&2; exit 1; }
  printf 'token %s\nmade %s\nexpires %s\nscopes %s\n' "$token" "$1" "$2" "$3" > "$file.part"
  sync -- "$file.part"
  mv -f -- "$file.part" "$file"
  rm -f -- "$file.new"
fi
[ -n "$password" ] || exit 0
if said 'password set' > /dev/null; then
  echo "root's password was set"
elif said 'password kept' > /dev/null; then
  echo "root's password was changed after GitLab was installed: it is kept"
else
  echo "gitlab-rails printed no result" >&2
  exit 1
fi
rm -f -- "$initial" # its password is no longer valid
