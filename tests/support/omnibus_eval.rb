# frozen_string_literal: true

# Reads gitlab.rb texts the way omnibus does: one JSON object a line in, one out.
#
#   in:  {"text": base64}      out: {"ok": {"registry": {…}, "external_url": "…"}} or {"error": "…"}
#
# The text is instance_eval'ed; top-level names that are no settings raise; `name value` sets, `name` reads; hashes
# take symbols for strings, and nested keys spring up when they are first read.
require 'base64'
require 'json'
require 'set'
require 'yaml'

# A hash like omnibus's ConfigMash.
class ConfigMash < Hash
  def self.from(value)
    case value
    when ConfigMash then value
    when Hash then value.each_with_object(ConfigMash.new) { |(key, item), mash| mash[key] = item }
    when Array then value.map { |item| from(item) }
    else value
    end
  end

  def initialize
    super { |mash, key| mash[key] = ConfigMash.new }
  end

  def [](key)
    super(plain(key))
  end

  def []=(key, value)
    super(plain(key), ConfigMash.from(value))
  end
  alias store []=

  def delete(key)
    super(plain(key))
  end

  def merge!(other)
    other.each { |key, value| self[key] = value }
    self
  end
  alias update merge!

  private

  def plain(key)
    key.is_a?(Symbol) ? key.to_s : key
  end
end

# What gitlab.rb's `self` is; the file knows it as `Gitlab` too.
class Settings
  CALLS = Set.new(%w[external_url registry_external_url pages_external_url mattermost_external_url roles git_data_dirs])
  TABLES = Set.new(%w[gitlab_rails registry registry_nginx nginx letsencrypt postgresql redis prometheus sidekiq puma
                      gitaly gitlab_workhorse gitlab_pages logging user web_server package high_availability])
  attr_reader :__values

  def initialize
    @__values = {}
  end

  def [](name)
    @__values.fetch(name.to_s) { TABLES.include?(name.to_s) ? @__values[name.to_s] = ConfigMash.new : nil }
  end

  def []=(name, value)
    @__values[name.to_s] = ConfigMash.from(value)
  end

  def from_file(_path) = nil

  def respond_to_missing?(name, *) = CALLS.include?(name.to_s) || TABLES.include?(name.to_s)

  def method_missing(name, *values)
    name = name.to_s.delete_suffix('=')
    raise NoMethodError, "unknown setting #{name}" unless CALLS.include?(name) || TABLES.include?(name)

    return self[name] if values.empty?

    self[name] = values.size == 1 ? values[0] : values
  end
end

def jsonable(value)
  case value
  when Hash then { 'hash' => value.map { |key, item| [key, jsonable(item)] } }
  when Array then { 'array' => value.map { |item| jsonable(item) } }
  when String
    value = value.dup.force_encoding('UTF-8')
    value.valid_encoding? ? { 'string' => value } : { 'bytes' => Base64.strict_encode64(value) }
  when Symbol then { 'symbol' => value.to_s }
  when Integer then { 'integer' => value.to_s }
  when Float then { 'float' => value.to_s }
  when true, false, nil then value
  else { 'other' => value.inspect }
  end
end

answers = $stdout.dup
answers.sync = true
$stdout.reopen(File::NULL)
$stderr.reopen(File::NULL)
$stdin.each_line do |line|
  text = Base64.strict_decode64(JSON.parse(line).fetch('text')).force_encoding('UTF-8')
  begin
    settings = Settings.new
    Object.send(:remove_const, :Gitlab) if Object.const_defined?(:Gitlab)
    Object.const_set(:Gitlab, settings)
    settings.instance_eval(text, 'gitlab.rb', 1)
    answer = { 'ok' => settings.__values.transform_values { |value| jsonable(value) } }
  rescue ScriptError, StandardError => e
    answer = { 'error' => "#{e.class}: #{e.message.dup.force_encoding('UTF-8').scrub}" }
  end
  answers.puts JSON.generate(answer)
end
