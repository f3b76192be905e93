# Evaluates the program on standard input with the parts of GitLab's models that scripts of administrators use.
#
#   ruby rails.rb IN_FD OUT_FD
#
# IN_FD: the tables as JSON. OUT_FD: a line of JSON with all tables for each committed transaction.
# Names, checks and messages are those of GitLab: app/models/personal_access_token.rb, app/models/concerns/
# token_authenticatable.rb, app/models/user.rb, lib/security/weak_passwords.rb, lib/gitlab/auth.rb.

require 'date'
require 'digest'
require 'json'
require 'securerandom'
require 'time'

module Database
  given = JSON.parse(IO.new(Integer(ARGV[0])).read)
  OUT = IO.new(Integer(ARGV[1]), 'w')
  OUT.sync = true
  SETTINGS = given.delete('settings')
  @tables = given
  @depth = 0

  def self.rows(table)
    @tables.fetch(table)
  end

  def self.transaction
    before = Marshal.load(Marshal.dump(@tables))
    @depth += 1
    result = yield
    @depth -= 1
    OUT.puts(JSON.generate(@tables)) if @depth.zero?
    result
  rescue Exception
    @tables = before
    @depth = 0
    raise
  end
end

module ActiveRecord
  class RecordInvalid < StandardError; end
end

class Date
  def self.current
    Time.now.utc.to_date
  end

  def advance(days:)
    self + days
  end
end

# Records that were selected; conditions can be added, and they are enumerated.
class Relation
  include Enumerable

  def initialize(model, tests = [])
    @model = model
    @tests = tests
  end

  def where(**wanted)
    return Without.new(self) if wanted.empty?

    matching { |one| wanted.all? { |name, value| one.public_send(name) == value } }
  end

  def matching(&test)
    Relation.new(@model, @tests + [test])
  end

  def active
    matching(&:active?)
  end

  def order(_column)
    self
  end

  def each(&block)
    @model.every.select { |one| @tests.all? { |test| test.call(one) } }.each(&block)
  end

  Without = Struct.new(:relation) do
    def not(**unwanted)
      relation.matching { |one| unwanted.none? { |name, value| one.public_send(name) == value } }
    end
  end
end

class ApplicationRecord
  attr_reader :row

  def self.every
    Database.rows(self::TABLE).map { |row| new(row) }
  end

  def self.where(**wanted)
    Relation.new(self).where(**wanted)
  end

  def self.active
    Relation.new(self).active
  end

  def self.transaction(&block)
    Database.transaction(&block)
  end

  def initialize(row)
    @row = row
  end

  def id
    @row['id']
  end

  def save!
    problems = self.problems
    raise ActiveRecord::RecordInvalid, "Validation failed: #{problems.join(', ')}" unless problems.empty?

    Database.transaction do
      rows = Database.rows(self.class::TABLE)
      rows.push(@row) unless rows.include?(@row)
    end
    true
  end
end

class PersonalAccessToken < ApplicationRecord
  TABLE = 'tokens'
  LONGEST_DAYS = 365

  def self.every
    super.reject { |one| one.row['project'] }
  end

  def self.find_by_token(text)
    every.find { |one| one.row['token'] == text }
  end

  def name
    @row['name']
  end

  def scopes
    @row['scopes']
  end

  def scopes=(scopes)
    @row['scopes'] = scopes
  end

  def expires_at
    @row['expires_at'] && Date.parse(@row['expires_at'])
  end

  def expires_at=(date)
    @row['expires_at'] = date.to_s
  end

  def created_at
    Time.parse(@row['created_at'])
  end

  def set_token(text)
    @row['token'] = text
  end

  def revoked?
    @row['revoked'] ? true : false
  end

  def active?
    !revoked? && (expires_at.nil? || expires_at > Date.current)
  end

  def revoke!
    Database.transaction { @row['revoked'] = true }
  end

  def problems
    found = []
    found << "Name can't be blank" if name.to_s.empty?
    found << "Scopes can't be blank" if scopes.to_a.empty?
    found << 'Scopes can only contain available scopes' unless (scopes.to_a.map(&:to_sym) - Gitlab::Auth.all_available_scopes).empty?
    found << "Expires at can't be blank" if expires_at.nil?
    last = Date.current.advance(days: max_expiration_lifetime_in_days)
    found << "Expires at must be before #{last}" if expires_at && expires_at > last
    found << 'Token digest has already been taken' if Database.rows(TABLE).any? { |row| row['token'] == @row['token'] && !row.equal?(@row) }
    found
  end

  protected

  def max_expiration_lifetime_in_days
    LONGEST_DAYS
  end
end

class User < ApplicationRecord
  TABLE = 'users'
  WEAK = %w[password password1 password123 12345678 123456789 1234567890 qwertyuiop admin123 11111111 letmein1].freeze

  attr_writer :password_confirmation

  def self.admins
    Relation.new(self).matching { |one| one.row['admin'] }
  end

  def self.find_by_username(name)
    every.find { |one| one.row['username'] == name }
  end

  def username
    @row['username']
  end

  def active?
    @row.fetch('state', 'active') == 'active'
  end

  def personal_access_tokens
    Tokens.new(self)
  end

  def valid_password?(text)
    salt, digest = @row['password'].split('$', 2)
    !digest.to_s.empty? && Digest::SHA256.hexdigest("#{salt}:#{text}") == digest
  end

  def password=(text)
    @password = text
  end

  def password_automatically_set=(_flag); end

  def save!
    super
    return true if @password.nil?

    Database.transaction do
      salt = SecureRandom.hex(8)
      @row['password'] = "#{salt}$#{Digest::SHA256.hexdigest("#{salt}:#{@password}")}"
    end
    true
  end

  def problems
    return [] if @password.nil?

    found = []
    found << "Password confirmation doesn't match Password" unless @password == @password_confirmation
    found << 'Password must not contain commonly used combinations of words and letters' if weak?
    found << 'Password is too short (minimum is 8 characters)' if @password.length < 8
    found << 'Password is too long (maximum is 128 characters)' if @password.length > 128
    found
  end

  Tokens = Struct.new(:owner) do
    def build(**fields)
      row = { 'user' => owner.username, 'project' => nil, 'created_at' => Time.now.utc.iso8601(3), 'revoked' => false }
      PersonalAccessToken.new(row.merge(fields.transform_keys(&:to_s)))
    end
  end

  private

  def weak?
    words = ['gitlab', 'devops', username, 'Administrator', *@row['email'].to_s.split(/[^[:alnum:]]/)]
    words = words.select { |word| word.length >= 4 }.map(&:downcase)
    words.any? { |word| @password.downcase.include?(word) } || WEAK.include?(@password.downcase)
  end
end

module Gitlab
  module Auth
    def self.all_available_scopes
      %i[api read_user read_api create_runner manage_runner k8s_proxy self_rotate read_repository write_repository
         read_registry write_registry sudo admin_mode read_service_ping ai_features openid profile email]
    end
  end

  module CurrentSettings
    def self.admin_mode
      Database::SETTINGS['admin_mode'] ? true : false
    end
  end
end

eval($stdin.read, TOPLEVEL_BINDING, 'stdin')
