# Evaluates a gitlab.rb as the package does and answers with JSON.
#
#   ruby evaluate.rb GITLAB_RB OUT_FD
#
# names.json beside this file: the known top-level names, those that hold keys and those that hold one value.
# Sources: the templates of 12.10, 18.0 and 19.3; some are kept only to be refused with a better message.
#
# The answer, on file descriptor OUT_FD:
#   {"settings": {...}}                          everything that was assigned
#   {"error": {"class": "...", "message": "...", "line": N or null}}  it cannot be evaluated; exit status 1
# What the file itself prints goes to standard output, as it does with the real package.

require 'json'
require 'securerandom'
require 'uri'
require 'yaml'

Encoding.default_external = Encoding::UTF_8 # as the package's engine sets it, whatever the caller's locale is

# Raised for a top-level name that the package does not know.
class UnknownConfigOptionError < StandardError; end

# A hash whose keys are text, and which makes what is missing while a file is read.
class Table < Hash
  def self.wrap(value)
    return value.map { |one| wrap(one) } if value.is_a?(Array)
    return value if value.is_a?(Table) || !value.is_a?(Hash)

    value.each_with_object(new) { |(key, inner), table| table[key] = inner }
  end

  def [](key)
    key = key.to_s
    self[key] = Table.new unless key?(key)
    super(key)
  end

  def []=(key, value)
    super(key.to_s, Table.wrap(value))
  end

  alias store []=

  def key?(key)
    super(key.to_s)
  end

  def dig(key, *rest)
    inner = fetch(key.to_s, nil)
    rest.empty? || inner.nil? ? inner : inner.dig(*rest)
  end

  def merge!(*others)
    others.each { |other| other.each { |key, value| self[key] = value } }
    self
  end
end

# What `self` is inside gitlab.rb.
class Settings
  def initialize(names)
    @tables = names.fetch('tables')
    @values = names.fetch('values')
    @assigned = Table.new
  end

  def from_file(path)
    instance_eval(File.read(path), path, 1)
  end

  def to_json(*arguments)
    @assigned.to_json(*arguments)
  end

  def method_missing(name, *arguments)
    key = name.to_s.delete_suffix('=')
    known = @tables.include?(key) || @values.include?(key)
    if arguments.empty?
      raise UnknownConfigOptionError, "Reading unsupported config value #{key}." unless known

      return @tables.include?(key) || @assigned.key?(key) ? @assigned[key] : nil
    end
    raise UnknownConfigOptionError, "Cannot set unsupported config value #{key}." unless known

    @assigned[key] = arguments.length == 1 ? arguments.first : arguments
  end
end

path, fd = ARGV
out = IO.new(Integer(fd), 'w')
begin
  settings = Settings.new(JSON.parse(File.read(File.join(__dir__, 'names.json'))))
  settings.from_file(path)
  out.write(JSON.generate('settings' => settings))
rescue ScriptError, StandardError => e
  place = e.backtrace&.grep(/\A#{Regexp.escape(path)}:(\d+)/) { Integer(Regexp.last_match(1)) }&.first
  out.write(JSON.generate('error' => { 'class' => e.class.name, 'message' => e.message, 'line' => place }))
  exit 1
end
