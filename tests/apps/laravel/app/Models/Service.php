<?php

namespace App\Models;

class Service extends CompanyRecord
{
}
